"""A trained model seen in another mode, with the same parameters."""

from copy import copy
from dataclasses import replace

from distseq.models.temporal.evaluation.protocol import Protocol
from distseq.models.temporal.model import TemporalModel
from distseq.models.temporal.state import State, layout


def in_mode(model: TemporalModel, protocol: Protocol) -> TemporalModel:
    """The model in the mode of the protocol: itself, or a view that shares its parameters.

    ValueError where the model's options do not fit the mode, or have no parameter that it needs.

    >>> model = TemporalModel("tgn", width=8, time_width=4)
    >>> view = in_mode(model, Protocol(mode="exact"))
    >>> view.options.mode, model.options.mode, view.updater is model.updater
    ('exact', 'parallel', True)
    """
    trained = model.options
    mode = trained.mode if protocol.mode is None else protocol.mode
    micro = protocol.micro or (trained.micro if mode == trained.mode else 0)
    if (mode, micro) == (trained.mode, trained.micro):
        return model
    if mode == "pres":
        raise ValueError(
            f"evaluation: mode 'pres' needs a gamma learned in it: the model was trained in {trained.mode!r}"
        )
    if mode == "replay" and not micro:
        raise ValueError(f"evaluation: mode 'replay' needs micro: the model was trained in {trained.mode!r}")
    view = copy(model)
    # copy shares the dictionary of parameters with the model, which would lose its gamma too.
    view._parameters = model._parameters.copy()
    view.options, view.gamma = replace(trained, mode=mode, micro=micro), None
    return view


def fitted(state: State, model: TemporalModel) -> State:
    """The state without what the model's mode does not keep, such as the trackers of "pres"; it shares the other fields."""
    kept = layout(model.options)
    return State({name: field for name, field in state.fields.items() if name in kept}, state.position)
