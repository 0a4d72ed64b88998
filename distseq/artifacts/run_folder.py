"""The folder of one run: config.toml, journal.jsonl, checkpoints/, weights/ and summary.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distseq.cluster.system.atomic_files import write_whole
from distseq.config.schema import Config
from distseq.config.toml_file import to_toml
from distseq.engine.journal import FileJournal


class RunFolder:
    """A run folder, made in a new or empty folder. ValueError, with nothing left behind, when that cannot be done."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self._made, self._begun = path, list[Path](), False
        try:
            if path.exists() and any(path.iterdir()):
                raise ValueError(f"run folder {path} is not empty: choose another with --out")
            # Also the parents that did not exist: a run that never begins removes exactly what it has made.
            self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            # From here on, files of these names are this run's own and may be removed.
            self._begun = True
            write_whole(path / "config.toml", lambda file: file.write(to_toml(config).encode()))
            self.journal = FileJournal(path / "journal.jsonl")
        except OSError as error:
            self._remove()
            raise ValueError(f"cannot write run folder {path}: {error.strerror}") from None

    @classmethod
    def resumed(cls, path: Path) -> "RunFolder":
        """The existing folder of an earlier run. ValueError when its journal cannot be written."""
        folder = cls.__new__(cls)
        folder.path, folder._made, folder._begun = path, [], False
        try:
            folder.journal = FileJournal(path / "journal.jsonl", resume=True)
        except OSError as error:
            raise ValueError(f"cannot resume in run folder {path}: {error.strerror}") from None
        return folder

    def go_on(self, config: Config) -> None:
        """Replaces the configuration of an earlier run, which is resumed with it, and removes its summary."""
        write_whole(self.path / "config.toml", lambda file: file.write(to_toml(config).encode()))
        # A summary marks a complete run (distseq.artifacts.resume.complete), which this is not until it ends again.
        (self.path / "summary.json").unlink(missing_ok=True)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def discard(self) -> None:
        """Removes what was made, for a run that never began."""
        self.journal.close()
        self._remove()

    def _remove(self) -> None:
        if self._begun:
            for name in ("journal.jsonl", "config.toml"):
                (self.path / name).unlink(missing_ok=True)
        # The innermost first; rmdir removes nothing that holds a file of somebody else.
        for folder in self._made:
            if folder.is_dir():
                folder.rmdir()

    def save_weights(self, name: str, state: Mapping[str, Any]) -> None:
        """Writes a state dict of tensors as weights/NAME.safetensors; tied tensors are written once for each name."""
        from safetensors.torch import save

        folder = self.path / "weights"
        folder.mkdir(exist_ok=True)
        # Cloned, because safetensors refuses tensors that share memory, as tied ones do.
        data = save({key: tensor.detach().clone().contiguous() for key, tensor in state.items()})
        write_whole(folder / f"{name}.safetensors", lambda file: file.write(data))

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json."""
        data = json.dumps(summary, indent=1).encode()
        write_whole(self.path / "summary.json", lambda file: file.write(data))
