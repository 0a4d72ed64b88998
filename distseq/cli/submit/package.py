"""Copies the running distseq, as a plain package, to a folder that Ray uploads."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def stage(target: Path) -> Path:
    """Copies the running distseq to `target`/distseq, from a source tree, an installation or a zip file."""
    # Through importlib.resources, which follows links and reads archives alike.
    _copy(files("distseq"), target / "distseq")
    return target / "distseq"


def _copy(source: Traversable, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            # Compiled files of another Python would only be ballast.
            if entry.name != "__pycache__":
                _copy(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())


def excludes(working_dir: Path) -> list[str]:
    """Names in a working directory to leave out: a distseq of its own, which would be imported before the staged one."""
    return [f"/{name}" for name in ("distseq", "distseq.py") if (working_dir / name).exists()]
