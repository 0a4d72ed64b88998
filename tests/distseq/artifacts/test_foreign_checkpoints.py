"""A checkpoint whose checksums are right, and whose state no distseq has written, is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distseq.artifacts.checkpoint import FORMAT, STATE, Checkpoint, _seal, encode, read
from distseq.learners.learner import Learner
from distseq.learners.state_files import DamagedError


def learner() -> Learner:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    data = [(torch.ones(3), torch.ones(2)) for _ in range(4)]
    return Learner(
        "m", model, optimizer, data=data, batch=2, steps=9, ema=0.5, loss=lambda model, batch: model(batch[0]).sum(1)
    )


def written(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A checkpoint whose state was changed before it was sealed."""
    files = encode(Checkpoint("c" * 64, 3, {"m": 1}, {"m": learner().snapshot()}))
    state = json.loads(files[STATE])["state"]
    change(state)
    files[STATE] = json.dumps({"format": FORMAT, "sha256": _seal(FORMAT, state), "state": state}).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("next_job"), r"^state\.json is not the state of a run: KeyError: 'next_job'$"),
        (lambda state: state.update(next_job=1e308), r"a number of steps or jobs must be a whole one: got 1e\+308$"),
        (lambda state: state["learners"][0].update(step=-1), r"must be a whole one: got -1$"),
        (lambda state: state.update(learners=[{"a": [[True]]}]), r"is not the state of a run: KeyError: 'name'$"),
        (lambda state: state.update(learners=5), r"is not the state of a run: TypeError: "),
        (lambda state: state["learners"][0].pop("summed"), r"is not the state of a run: KeyError: 'summed'$"),
        (lambda state: state["learners"][0].update(summed=None), r"what is kept of m is not the state of a learner$"),
        (
            lambda state: state["learners"][0]["optimizer"].pop("param_groups"),
            r"what is kept of m is not the state of a",
        ),
        (
            lambda state: state["learners"][0]["optimizer"]["param_groups"][0].update(
                params=[{"$tensor": "model.bias"}]
            ),
            r"what is kept of m is not the state of a learner$",
        ),
        (lambda state: state["learners"][0].update(optimizer={"$tensor": "gone"}), r"KeyError: 'gone'$"),
        (
            lambda state: state.update(files={"../m.safetensors": "0"}),
            r"^'\.\./m\.safetensors' is not a file of the checkp",
        ),
        (lambda state: state.update(files={"/dev/zero": "0"}), r"^'/dev/zero' is not a file of the checkpoint$"),
        (lambda state: state.update(files=5), r"^state\.json is incomplete or not JSON$"),
    ],
)
def test_a_state_of_another_form_is_damage(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(DamagedError, match=message) as error:
        read(written(tmp_path, change))
    assert "\n" not in str(error.value)


def test_a_state_that_is_nested_too_deeply_is_damage(tmp_path: Path) -> None:
    written(tmp_path, lambda state: None)
    (tmp_path / STATE).write_text("[" * 100_000)
    with pytest.raises(DamagedError, match=r"^state\.json is incomplete or not JSON$"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda one: one["optimizer"]["param_groups"].append({"params": []}),
            r"learner m: group 1 of its optimizer is None",
        ),
        (
            lambda one: one["optimizer"].update(state={"$by_index": {"0": {"exp_avg": 1}}}),
            r"^learner m: its optimizer cannot be restored: KeyError: 'step'$",
        ),
    ],
)
def test_what_an_optimizer_refuses_leaves_the_learner_as_it_was(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    def one(state: dict[str, Any]) -> None:
        change(state["learners"][0])

    snapshot = read(written(tmp_path, one)).snapshots["m"]
    mine = learner()
    before, state = mine.publish().copy(), repr(mine.optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        mine.restore(snapshot)
    assert (mine.publish() == before).all()
    assert repr(mine.optimizer.state_dict()) == state


def test_an_average_of_another_shape_does_not_fit(tmp_path: Path) -> None:
    mine, other = learner(), learner().snapshot()
    assert other.average is not None
    name = next(name for name in other.average if name.endswith("weight"))
    other.average[name] = torch.ones(5)
    with pytest.raises(
        ValueError, match=r"learner m: .*weight of its average is float32 \(2, 3\), but float32 \(5,\) in the"
    ):
        mine.restore(other)
