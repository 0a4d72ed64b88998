"""A text as a dataset of character windows: the first 90 % to train on, the last 10 % to measure on.

Shapes: B samples, T characters a window, V symbols.
"""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from distseq.models.data.aws_docs import aws_text
from distseq.models.data.dataset import check_ids

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
UNKNOWN = len(ALPHABET)
SYMBOLS = UNKNOWN + 1

# Symbol of every ASCII code; the last one, DEL, is unknown and stands for all that is not ASCII.
_SYMBOL_OF = np.full(128, UNKNOWN, np.uint8)
_SYMBOL_OF[[ord(character) for character in ALPHABET]] = np.arange(UNKNOWN)


def encode(text: str) -> np.ndarray:
    """Symbols of a text, one a character, uint8; what is not in the alphabet becomes `UNKNOWN`."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return _SYMBOL_OF[np.minimum(codes, 127)]


def decode(symbols: np.ndarray) -> str:
    """The text of symbols, with U+FFFD for the unknown ones."""
    return "".join((ALPHABET + "\N{REPLACEMENT CHARACTER}")[symbol] for symbol in symbols)


class Text:
    """Character windows of one text. Sample i is characters i .. i + window, all of them in the training part."""

    def __init__(self, text: str, window: int = 128) -> None:
        if not isinstance(window, int) or window < 1:
            raise ValueError(f"a text window is a whole number of at least 1 character: got window={window!r}")
        # One window and its last target must fit into the 10 % held out.
        need = 10 * window + 1
        if len(text) < need:
            raise ValueError(f"a text for window={window} needs at least {need} characters: got {len(text)}")
        boundary = len(text) * 9 // 10
        self.window = window
        self.train, self.test = np.split(encode(text), [boundary])
        recipe = f"distseq text, window {window}, split {boundary}\n" + text
        self.fingerprint = hashlib.sha256(recipe.encode("utf-8", "surrogatepass")).hexdigest()

    def __len__(self) -> int:
        """Number of start positions of a training window with its targets."""
        return len(self.train) - self.window

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Inputs and targets, each (B, T) int64, of the training windows that start at `indices`."""
        check_ids(indices, len(self))
        return windows(self.train, indices, self.window)

    @cached_property
    def unigram_entropy(self) -> float:
        """Bits a held-out character takes under the symbol frequencies (add-one smoothed) of the training part."""
        counts_V = np.bincount(self.train, minlength=SYMBOLS) + 1
        return float(-np.log2(counts_V / counts_V.sum())[self.test].mean())


def open_aws(service: str, window: int = 128) -> Text:
    """The documentation of one AWS service."""
    return Text(aws_text(service), window)


def open_file(path: str, window: int = 128) -> Text:
    """A UTF-8 text file. ValueError, naming the path, when it can't be read as such."""
    return Text(read_text(path), window)


def read_text(path: str) -> str:
    """The content of a UTF-8 text file. ValueError, naming the path, when it can't be read as such."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"can't read text file {path!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"text file {path!r} is not UTF-8: {error.reason} at byte {error.start}") from None


def windows(symbols: np.ndarray, starts: np.ndarray, window: int) -> dict[str, torch.Tensor]:
    """Inputs and the characters that follow them, from windows of `window` + 1 symbols."""
    cut = torch.from_numpy(symbols[starts[:, None] + np.arange(window + 1)].astype(np.int64))
    return {"inputs": cut[:, :-1], "targets": cut[:, 1:]}


def open_folder(path: str, window: int = 128) -> Text:
    """Every *.txt below `path`, UTF-8, sorted by its path in there, joined by newlines. ValueError when there is none."""
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"can't read data 'folder:{path}': there is no such folder")
    files = sorted((p for p in root.rglob("*.txt") if p.is_file()), key=lambda p: p.relative_to(root).parts)
    if not files:
        raise ValueError(f"data 'folder:{path}' hold no *.txt file")
    return Text("\n".join(read_text(str(file)) for file in files), window)
