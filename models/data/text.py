"""A text as a data set of character windows: the first 90 % for training, the last 10 % held out.

Shapes: B samples, T characters per window, V symbols.
"""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from distseq.models.data.aws_docs import aws_text
from distseq.models.data.dataset import check_ids
from distseq.models.data.files import check_file, files_below

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
UNKNOWN = len(ALPHABET)
SYMBOLS = UNKNOWN + 1

# Files left out of a folder that are named.
NAMED = 3

# Symbol of every ASCII code. The last one, DEL, is unknown, and stands for everything that is not ASCII.
_SYMBOL_OF = np.full(128, UNKNOWN, np.uint8)
_SYMBOL_OF[[ord(character) for character in ALPHABET]] = np.arange(UNKNOWN)


def encode(text: str) -> np.ndarray:
    """The symbols of a text, one uint8 per character; characters that are not in ALPHABET become UNKNOWN."""
    # Through UTF-32 and a table, as one array operation; surrogatepass, because a text may hold broken escapes of its source.
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return _SYMBOL_OF[np.minimum(codes, 127)]


def decode(symbols: np.ndarray) -> str:
    """The text of symbols, with U+FFFD for UNKNOWN."""
    return "".join((ALPHABET + "\N{REPLACEMENT CHARACTER}")[symbol] for symbol in symbols)


class Text:
    """Character windows of one text. Sample i is the characters i to i + window, all in the training part.

    ValueError for a window below 1, or a text that is too short for one held-out window.
    """

    def __init__(self, text: str, window: int = 128) -> None:
        if type(window) is not int or window < 1:
            raise ValueError(f"a text window must be a whole number of at least 1 character: got window={window!r}")
        # One window and its last target must fit into the held-out 10 %.
        need = 10 * window + 1
        if len(text) < need:
            raise ValueError(f"a text for window={window} needs at least {need} characters: got {len(text)}")
        # In integers, so that every host cuts at the same character.
        boundary = len(text) * 9 // 10
        self.window = window
        # What whoever opens the text should be told once: a line each.
        self.notes: tuple[str, ...] = ()
        self.train, self.test = np.split(encode(text), [boundary])
        recipe = f"distseq text, window {window}, split {boundary}\n" + text
        self.fingerprint = hashlib.sha256(recipe.encode("utf-8", "surrogatepass")).hexdigest()

    def __len__(self) -> int:
        """The number of start positions of training windows."""
        return len(self.train) - self.window

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Inputs and targets, each (B, T) int64, of the training windows that start at `indices`."""
        check_ids(indices, len(self))
        return windows(self.train, indices, self.window)

    @cached_property
    def unigram_entropy(self) -> float:
        """Bits per held-out character under the symbol frequencies of the training part."""
        # Add-one smoothing: a symbol that occurs only in the held-out part would take infinitely many bits.
        counts_V = np.bincount(self.train, minlength=SYMBOLS) + 1
        return float(-np.log2(counts_V / counts_V.sum())[self.test].mean())


def open_aws(service: str, window: int = 128) -> Text:
    """The documentation of one AWS service."""
    return Text(aws_text(service), window)


def open_file(path: str, window: int = 128) -> Text:
    """A UTF-8 text file. ValueError, naming the path, if it can't be read."""
    return Text(read_text(path), window)


def read_text(path: str) -> str:
    """The content of a UTF-8 text file. ValueError, naming the path, if it can't be read."""
    check_file(f"text file {path!r}", path)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"can't read text file {path!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"text file {path!r} is not UTF-8: {error.reason} at byte {error.start}") from None


def notes(data: object) -> tuple[str, ...]:
    """What whoever opened the data should be told once, a line each."""
    return data.notes if isinstance(data, Text) else ()


def windows(symbols: np.ndarray, starts: np.ndarray, window: int) -> dict[str, torch.Tensor]:
    """Inputs and targets, each (B, T) int64: windows that begin at `starts`, and the same one character later."""
    cut = torch.from_numpy(symbols[starts[:, None] + np.arange(window + 1)].astype(np.int64))
    return {"inputs": cut[:, :-1], "targets": cut[:, 1:]}


def open_folder(path: str, window: int = 128) -> Text:
    """All *.txt files below `path`, UTF-8, in the order of their paths, joined by newlines. ValueError if there is none.

    Links to folders are followed; `notes` of the text names the files that are left out.
    """
    spec = f"folder:{path}"
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"can't read data {spec!r}: there is no such folder")
    # By the parts of relative paths, whose order depends neither on the file system nor on its separator.
    files = sorted(files_below(spec, root), key=lambda p: p.relative_to(root).parts)
    texts = [file for file in files if file.name.lower().endswith(".txt")]
    others = [file for file in files if not file.name.lower().endswith(".txt") and not _hidden(file.relative_to(root))]
    if not texts:
        raise ValueError(f"data {spec!r} has no *.txt file")
    text = Text("\n".join(read_text(str(file)) for file in texts), window)
    if others:
        names = ", ".join(str(file.relative_to(root)) for file in others[:NAMED]) + (
            " ..." if len(others) > NAMED else ""
        )
        files_left = "1 file that is" if len(others) == 1 else f"{len(others)} files that are"
        text.notes = (f"data {spec!r} leaves out {files_left} not *.txt: {names}",)
    return text


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
