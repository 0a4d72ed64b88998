"""distseq: trains many sequence models at once on workers that are often late, with exact gradients.

Public names: `train`, `Learner`, `Result` and `Stopped` to train; `Muon`, an optimizer; `Observer` to watch; `load_config` to
read a config file; `simulate`, of a candidate in a `Setting`, and `plan` to schedule without training; `block_seeds` for what a
model draws. Each is imported from its module when it is first used.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distseq.cluster.system.stop_signals import Stopped as Stopped
    from distseq.config.toml_file import load_config as load_config
    from distseq.engine.interfaces import Observer as Observer
    from distseq.gradients.randomness import block_seeds as block_seeds
    from distseq.learners.learner import Learner as Learner
    from distseq.learners.optimizers.muon import Muon as Muon
    from distseq.simulation.plan import plan as plan
    from distseq.simulation.simulate import Setting as Setting
    from distseq.simulation.simulate import simulate as simulate
    from distseq.training.run import Result as Result
    from distseq.training.train import train as train

__version__ = "0.1.0"

# `import distseq` alone imports none of them, so that it stays light.
_HOMES = {
    "Learner": "distseq.learners.learner",
    "Muon": "distseq.learners.optimizers.muon",
    "Observer": "distseq.engine.interfaces",
    "Result": "distseq.training.run",
    "Setting": "distseq.simulation.simulate",
    "Stopped": "distseq.cluster.system.stop_signals",
    "block_seeds": "distseq.gradients.randomness",
    "load_config": "distseq.config.toml_file",
    "plan": "distseq.simulation.plan",
    "simulate": "distseq.simulation.simulate",
    "train": "distseq.training.train",
}
__all__ = [  # noqa: RUF022 - resolved by __getattr__; in the order in which they are met
    "train",
    "Learner",
    "Muon",
    "Observer",
    "Result",
    "Stopped",
    "load_config",
    "simulate",
    "Setting",
    "plan",
    "block_seeds",
    "__version__",
]

# The sub-packages that lie beside this folder. git with core.symlinks=false, and some programs that unpack archives, write a
# link as a small file; without this check the first import would only say that there is no such module.
_FOLDERS = ("coding", "cluster", "kernels", "models")
for _name in _FOLDERS:
    if os.path.isfile(os.path.join(os.path.dirname(__file__), _name)):
        raise ImportError(
            f"{os.path.join(os.path.dirname(__file__), _name)} is a file and must be a symbolic link to ../{_name}: in a clone, "
            f"git config core.symlinks true && git checkout -- {' '.join(f'distseq/{folder}' for folder in _FOLDERS)}; "
            "elsewhere, unpack with a program that keeps links"
        )


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distseq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
