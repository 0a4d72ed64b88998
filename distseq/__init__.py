"""distseq: many sequence models trained at once on workers that cannot be trusted to be on time."""

import importlib
from pathlib import Path as _Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distseq.learner import Learner as Learner
    from distseq.training import Result as Result
    from distseq.training import train as train

__version__ = "0.1.0"

_src = _Path(__file__).resolve().parent.parent
if (_src / "pyproject.toml").is_file() and (_src / "coding" / "__init__.py").is_file():
    __path__.append(str(_src))  # a source tree: the sub-packages lie beside this folder; in a wheel they lie inside it


_HOMES = {"train": "training", "Result": "training", "Learner": "learner"}


def __getattr__(name: str) -> object:
    """`distseq.train`, `distseq.Result` and `distseq.Learner`, imported when first used: `import distseq` alone stays light."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"distseq.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'distseq' has no attribute {name!r}")
