"""distseq: many sequence models trained at once on workers that cannot be trusted to be on time."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distseq.learners.learner import Learner as Learner
    from distseq.training.run import Result as Result
    from distseq.training.train import train as train

__version__ = "0.1.0"

# What is imported from where when it is first used: `import distseq` alone stays light.
_HOMES = {
    "Learner": "distseq.learners.learner",
    "Result": "distseq.training.run",
    "train": "distseq.training.train",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distseq' has no attribute {name!r}")
