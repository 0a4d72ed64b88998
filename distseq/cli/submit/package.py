"""Copies the running distseq, as a plain package, to a folder that Ray uploads."""

import re
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


# Files that hold secrets, wherever they lie; a pattern is Ray's, which is git's.
SECRETS = (
    ".env",
    ".env.*",
    ".envrc",
    ".netrc",
    ".pypirc",
    ".git-credentials",
    ".aws",
    ".ssh",
    "*.pem",
    "id_rsa",
    "id_ed25519",
)
# Run folders, whose checkpoints may be large, and an environment, which is not the cluster's.
OURS = ("/runs", ".git", ".venv", "__pycache__")


def excludes(working_dir: Path) -> list[str]:
    """Patterns of what of a working directory is never sent: secrets, run folders, environments and a distseq of its own."""
    # A distseq of its own would be imported before the staged one.
    own = [f"/{name}" for name in ("distseq", "distseq.py") if (working_dir / name).exists()]
    # Run folders elsewhere, made with --out: they hold a journal beside the configuration.
    journals = [path for depth in ("*", "*/*") for path in working_dir.glob(f"{depth}/journal.jsonl")]
    runs = [path.parent.relative_to(working_dir) for path in journals if (path.parent / "config.toml").is_file()]
    return [*SECRETS, *OURS, *own, *sorted(f"/{_literal(run.as_posix())}" for run in runs)]


def _literal(path: str) -> str:
    """The pattern that matches a path and no other."""
    return re.sub(r"([][*?!#\\ ])", r"\\\1", path)
