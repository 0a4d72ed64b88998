"""Names of learners and paths of run folders: what a file system can hold, and a terminal can print."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from distseq.config.schema import LearnerConfig

# Of a learner. A file system takes 255 bytes for the name of a file, of which ".NAME.ema.safetensors.PID.tmp" needs some.
LONGEST = 200
# Names of devices on Windows, with any ending: a folder with such a file cannot be copied there.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{k}" for port in ("com", "lpt") for k in range(1, 10))}
# The longest path below a run folder, without the learner's name: "checkpoints/.JOBS.PID.old.tmp/NAME.safetensors"
BELOW = 80
WAY_OUT = "choose another with --out"


def check_names(learners: Sequence[LearnerConfig]) -> None:
    """ValueError for a name whose weights no file can hold, here or on a computer that the run folder is copied to."""
    seen: dict[str, str] = {}
    for one in learners:
        if len(one.name) > LONGEST:
            raise ValueError(
                f"the name of learner {one.name[:20]}... has {len(one.name)} characters: at most {LONGEST}"
            )
        if one.name.partition(".")[0].lower() in DEVICES:
            raise ValueError(
                f"learner {one.name}: Windows keeps this name for a device, and cannot hold its weights file"
            )
        for name in (one.name, *([f"{one.name}.ema"] if one.ema is not None else [])):
            other = seen.setdefault(name.lower(), name)
            # Equal names are refused when the configuration is made.
            if other != name:
                raise ValueError(
                    f"{other!r} and {name!r} differ only in case: many file systems hold one weights file for both"
                )


def check_run_folder(folder: Path, names: Iterable[str]) -> None:
    """ValueError for a path that cannot be printed in one line, or is too long for the files of these learners."""
    text = str(folder)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the path of the run folder is not UTF-8: got {text!r}; {WAY_OUT}") from None
    if not text.isprintable():
        raise ValueError(f"the path of the run folder must be printable characters: got {text!r}; {WAY_OUT}")
    place = next((one for one in folder.absolute().parents if one.is_dir()), Path("/"))
    name, path = (os.pathconf(place, limit) for limit in ("PC_NAME_MAX", "PC_PATH_MAX"))
    longest = max(map(len, names), default=0)
    for part in folder.parts:
        if len(part.encode()) > name:
            raise ValueError(
                f"the run folder's {part[:20]!r}... has {len(part.encode())} bytes: at most {name}; {WAY_OUT}"
            )
    if longest + 255 - LONGEST > name:
        raise ValueError(
            f"the file system of {place} takes names of {name} bytes, which a learner's name is too long for"
        )
    needed = len(os.fsencode(folder.absolute())) + BELOW + longest
    if needed > path:
        raise ValueError(f"the path of the run folder needs {needed} bytes with its files: at most {path}; {WAY_OUT}")
