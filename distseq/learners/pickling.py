"""Sends models, losses and data made in Python to the workers, pickled by value.

By value (cloudpickle), so that a script or a notebook may define them. Only workers unpickle, and only what their own master has
pickled.
"""

import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import cloudpickle
from torch import nn
from torch.nn.utils import parametrize

from distseq.gradients.work import GradientWork
from distseq.learners.learner import Learner

Part = Mapping[str, Any]
T = TypeVar("T")


def models(learners: Sequence[Learner]) -> bytes:
    """Pickles models and losses. ValueError naming the learner and the object that cannot be pickled."""
    # Model and loss in one pickle, because a loss may hold a reference to its model.
    return _pickled(learners, [{"model": one.model, "loss": one.loss} for one in learners])


def data(learners: Sequence[Learner]) -> bytes:
    """Pickles data sets; those given by a spec are sent as the spec. ValueError naming what cannot be pickled."""
    return _pickled(learners, [_data(one) for one in learners])


def work_on_driver(learners: Sequence[Learner], models: bytes, dtype: str) -> GradientWork:
    """The Work on this machine: copies of the models, as workers have them, with the learners' own data objects."""
    # Unpickled copies, so that the Work never loads an older job's parameters into a model that is being trained.
    own = ({"data": one.data, "evaluation": one.evaluation} for one in learners)
    return GradientWork([{**model, **data} for model, data in zip(pickle.loads(models), own, strict=True)], dtype)


def work_on_host(dtype: str, device: str, threads: int, blob: bytes) -> GradientWork:
    """The Work on a worker; `blob` is one pickle of the two pickles, models and data."""
    parts = (pickle.loads(part) for part in pickle.loads(blob))
    return GradientWork([{**model, **data} for model, data in zip(*parts, strict=True)], dtype, device, threads)


def _data(one: Learner) -> Part:
    data: Part = {"data": one.data}
    if one.spec is not None:
        data = {"data": one.spec, "data_args": one.data_args, "fingerprint": one.data.fingerprint}
    if one.evaluation is None or one.evaluation_spec is None:
        return {**data, "evaluation": one.evaluation if one.evaluation_given else None}
    evaluation = {"evaluation": one.evaluation_spec, "evaluation_args": one.evaluation_args}
    return {**data, **evaluation, "evaluation_fingerprint": one.evaluation.fingerprint}


def _pickled(learners: Sequence[Learner], parts: Sequence[Part]) -> bytes:
    """Pickles everything at once, so that what learners share is sent once."""
    try:
        return _dumps(parts)
    except Exception:  # a user's object may raise anything
        # One by one now, to find out which object it is.
        for one, part in zip(learners, parts, strict=True):
            for what, value in part.items():
                _try(one.name, what, value)
        raise


def _try(name: str, what: str, value: Any) -> None:
    try:
        _dumps(value)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).splitlines()[:1])}"
        raise ValueError(f"learner {name}: its {what} cannot be sent to workers by pickle: {reason}") from error


def copied(value: T) -> T:
    """A copy by pickle, as workers get it."""
    made: T = pickle.loads(_dumps(value))
    return made


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Also pickles modules with parametrizations, which torch refuses because their classes are made on the fly."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            return _blank, (parametrize.type_before_parametrizations(obj),), obj.__dict__, None, None, _parametrized
        return super().reducer_override(obj)


def _blank(kind: type[nn.Module]) -> nn.Module:
    return kind.__new__(kind)


def _parametrized(module: nn.Module, state: dict[str, Any]) -> None:
    """Makes a blank module what its pickled original was: a class of its own, with a property for each parametrized tensor."""
    module.__dict__.update(state)
    parametrize._inject_new_class(module)
    for name in module.parametrizations:  # type: ignore[union-attr]
        parametrize._inject_property(module, name)


def _dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()
