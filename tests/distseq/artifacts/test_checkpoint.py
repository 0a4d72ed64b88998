"""Checkpoints on disk: written whole or not at all, checked when read, with all that a learner needs to go on."""

import contextlib
import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from distseq.artifacts.checkpoint import FORMAT, Checkpoint, _seal, encode, newest, numbered, read
from distseq.artifacts.checkpointer import Checkpointer, write_checkpoint
from distseq.cluster.system.atomic_files import write_bytes
from distseq.config.schema import CheckpointConfig
from distseq.engine.interfaces import Observer
from distseq.learners.learner import Learner
from distseq.learners.optimizers.muon import Muon
from distseq.learners.state_files import DamagedError
from tests.distseq.artifacts.crashing import (
    JOBS,
    CrashAfter,
    assert_same_bits,
    command,
    crashed,
    crashes,
    train,
    weights,
)

ROOT = Path(__file__).resolve().parents[3]


def test_with_every_0_only_the_start_and_the_end_are_kept(job: Path) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 0"))
    train(job, out=job.parent / "run")
    assert [number for number, _ in numbered(job.parent / "run" / "checkpoints")] == [JOBS, 0]


def test_the_last_few_checkpoints_are_kept(job: Path) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 4\nkeep = 2"))
    train(job, out=job.parent / "run")
    names = sorted(path.name for path in (job.parent / "run" / "checkpoints").iterdir())
    assert names == ["00000028", "00000030"]


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "bits of the tensors": lambda folder: flip(folder / "adam.safetensors", 0.7),
    "bits of their names": lambda folder: flip(folder / "adam.safetensors", 0.01),
    "bits of the state": lambda folder: flip(folder / "state.json", 0.5),
    "the format's number": lambda folder: (folder / "state.json").write_text(
        (folder / "state.json").read_text().replace('"format": 1', '"format": 9')
    ),
    "cut tensors": lambda folder: os.truncate(folder / "adam.safetensors", 1000),
    "cut state": lambda folder: os.truncate(folder / "state.json", 300),
    "an empty state": lambda folder: os.truncate(folder / "state.json", 0),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "no tensors": lambda folder: (folder / "momentum.safetensors").unlink(),
    "a state of another kind": lambda folder: (folder / "state.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    job: Path, damage: str, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = crashed(job, 9)
    (_, latest), *before = numbered(run / "checkpoints")
    DAMAGE[damage](latest)
    result, printed = train(resume=run)
    assert printed.count("warning: ") == 1
    assert f"warning: checkpoint {latest} is damaged: " in printed
    assert f"resuming from job {before[0][0]}" in printed
    assert_same_bits(weights(result), whole())


def test_damaged_checkpoints_that_were_passed_over_go(job: Path) -> None:
    run = crashed(job, 9)
    for _, path in numbered(run / "checkpoints")[:2]:
        flip(path / "state.json", 0.5)
    with crashes():
        train(resume=run, watchers=[CrashAfter(1)])
    assert [number for number, _ in numbered(run / "checkpoints")] == [8, 7]
    assert newest(run / "checkpoints")[1] == []


def test_when_all_checkpoints_are_damaged_it_is_one_line(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = crashed(job, 9)
    for _, path in numbered(run / "checkpoints"):
        flip(path / "state.json", 0.5)
    journal = (run / "journal.jsonl").read_bytes()
    assert command("train", "--resume", str(run)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "00000009 is damaged: " in err
    assert "no older one is intact" in err
    assert (run / "journal.jsonl").read_bytes() == journal


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object], number: int = FORMAT) -> None:
    """Change the state of a checkpoint, with its checksum."""
    state = json.loads((folder / "state.json").read_text())["state"]
    change(state)
    envelope = {"format": number, "sha256": _seal(number, state), "state": state}
    (folder / "state.json").write_text(json.dumps(envelope))


def test_a_newer_format_is_refused(job: Path) -> None:
    run = crashed(job, 9)
    rewrite(numbered(run / "checkpoints")[0][1], lambda state: None, FORMAT + 1)
    with pytest.raises(ValueError, match=r"00000009 has format 2, but this version of distseq reads format 1"):
        train(resume=run)


def learner(
    seed: int = 0, optimizer: str = "Adam", inputs: int = 3, dtype: torch.dtype = torch.float32, **args: Any
) -> Learner:
    torch.manual_seed(seed)
    model = nn.Linear(inputs, 2, dtype=dtype)
    made: torch.optim.Optimizer
    if optimizer == "Signs":
        made = Signs(model.parameters(), {"lr": 0.1})
    elif optimizer == "Muon":
        made = Muon(model, lr=0.1, **args)
    else:
        made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **args)
    return Learner("m", model, made, data=range(9), batch=2, steps=9, loss=no_loss)


class Signs(torch.optim.Optimizer):
    """Keeps the last signs as int8 and a rate in double precision: no state has the dtype of its parameter."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                zeros, rate = (
                    torch.zeros_like(parameter, dtype=torch.int8),
                    torch.tensor(group["lr"], dtype=torch.float64),
                )
                state = self.state[parameter] or {"signs": zeros, "rates": [rate]}
                signs = parameter.grad.sign().to(torch.int8)
                rate = state["rates"][0] * (0.9 if bool((signs ^ state["signs"]).any()) else 1.1)
                self.state[parameter] = {"signs": signs, "rates": [rate]}
                with torch.no_grad():
                    parameter.sub_(signs * rate)


def no_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    raise AssertionError("only the learner's side is looked at")


def checkpoint(one: Learner, step: int) -> dict[str, bytes]:
    return encode(Checkpoint("configuration", step, {"m": step}, {"m": one.snapshot()}))


class Dies(BaseException):
    """The process, not the call."""


class Failing:
    """Writes the first so many bytes, over all files, then fails."""

    def __init__(self, left: int, error: BaseException) -> None:
        self.left, self.error = left, error

    def __call__(self, path: Path, data: bytes) -> None:
        write_bytes(path, data[: self.left])
        self.left -= len(data)
        if self.left < 0:
            raise self.error


def test_a_crash_in_the_middle_of_writing_leaves_the_last_good_one(tmp_path: Path) -> None:
    files = checkpoint(learner(), 4)
    write_checkpoint(tmp_path, 4, files, keep=2)
    later = checkpoint(learner(1), 5)
    size = sum(map(len, later.values()))
    for k in [*range(0, size, 97), *np.cumsum([len(data) for data in later.values()])[:-1], size - 1]:
        with pytest.raises(Dies):
            write_checkpoint(tmp_path, 5, later, 2, Failing(int(k), Dies()))
        kept, damaged = newest(tmp_path)
        assert (kept.steps, damaged) == ({"m": 4}, [])
    write_checkpoint(tmp_path, 5, later, 2)
    assert newest(tmp_path)[0].steps == {"m": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000005"], "what crashes left is gone"


def test_a_full_disk_is_one_warning_and_leaves_the_last_good_one(tmp_path: Path) -> None:
    printed, one = io.StringIO(), learner()
    disk = Failing(10**6, OSError(errno.ENOSPC, "No space left on device"))
    console = Console(file=printed, width=400)
    checkpointer = Checkpointer(tmp_path, [one], "c", CheckpointConfig(1, 3), console, lambda: False, write=disk)
    checkpointer.begin([0], 0, resumed=False)
    checkpointer.applied([1], 1)
    assert checkpointer.finish()
    disk.left = 300
    for step in range(2, 6):
        checkpointer.applied([step], step)
    assert not checkpointer.finish()
    assert printed.getvalue() == (
        f"warning: cannot write checkpoints to {tmp_path}: No space left on device; training goes on\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"], "older ones made room"
    disk.left = 10**6
    assert checkpointer.finish()
    assert newest(tmp_path)[0].steps == {"m": 5}
    checkpointer.close()


class Spoil(Observer):
    """Puts a file where the checkpoints' folder is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job_applied(self, learner: str, step: int, *rest: object) -> None:
        while step == 4 and not self.folder.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(IsADirectoryError):  # the writer was faster
                self.folder.write_text("")


def test_training_goes_on_where_checkpoints_cannot_be_written(
    job: Path, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = job.parent / "run"
    result, printed = train(job, out=run, watchers=[Spoil(run / "checkpoints")])
    assert_same_bits(weights(result), whole())
    assert 1 <= printed.count("warning: cannot write checkpoints to ") <= 2


def test_a_crash_while_an_old_one_is_removed_leaves_no_half_of_it(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step, checkpoint(learner(), step), keep=9)
    # As `remove_folder` leaves it half-way.
    (tmp_path / "00000001").rename(tmp_path / ".00000001.77.old.tmp")
    (tmp_path / ".00000001.77.old.tmp" / "state.json").unlink()
    assert [number for number, _ in numbered(tmp_path)] == [3, 2]
    write_checkpoint(tmp_path, 4, checkpoint(learner(), 4), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003", "00000004"]


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {"betas": (0.8, 0.99), "amsgrad": True}),
    ("AdamW", {"weight_decay": 0.1}),
    ("Adagrad", {}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("Rprop", {}),
    ("ASGD", {"t0": 2}),
    ("Adadelta", {}),
    ("Adamax", {}),
    ("Signs", {}),
    ("Muon", {"weight_decay": 0.1}),
    ("Muon", {"full_precision": True, "adam_betas": (0.8, 0.9)}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("optimizer", "args"), OPTIMIZERS)
def test_every_optimizer_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, optimizer: str, args: dict[str, Any], dtype: torch.dtype
) -> None:
    totals = np.random.default_rng(3).normal(size=(8, 12))
    one, other = learner(0, optimizer, dtype=dtype, **args), learner(1, optimizer, dtype=dtype, **args)
    for total in totals[:4]:
        one.apply(total)
    write_checkpoint(tmp_path, 4, checkpoint(one, 4), keep=1)
    other.restore(read(tmp_path / "00000004").snapshots["m"])
    for total in totals[4:]:
        one.apply(total)
        other.apply(total)
    np.testing.assert_array_equal(one.publish(), other.publish())
    assert repr(one.optimizer.state_dict()) == repr(other.optimizer.state_dict())


def test_a_schedule_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def scheduled() -> Learner:
        model = nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5], gamma=0.5)
        return Learner("m", model, optimizer, data=range(9), batch=2, steps=9, loss=no_loss, schedule=schedule)

    one, other = scheduled(), scheduled()
    for _ in range(3):
        one.apply(np.ones(12))
    write_checkpoint(tmp_path, 3, checkpoint(one, 3), keep=1)
    other.restore(read(tmp_path / "00000003").snapshots["m"])
    for _ in range(4):
        one.apply(np.ones(12))
        other.apply(np.ones(12))
    np.testing.assert_array_equal(one.publish(), other.publish())
    assert other.optimizer.param_groups[0]["lr"] == 0.25


def test_a_learner_that_does_not_fit_is_left_as_it_was() -> None:
    one = learner()
    before = one.publish()
    wide = learner(inputs=4)
    with pytest.raises(
        ValueError, match=r"weight of its model is float32 \(2, 3\), but float32 \(2, 4\) in the checkpoint"
    ):
        one.restore(wide.snapshot())
    np.testing.assert_array_equal(one.publish(), before)


def test_state_that_is_not_plain_data_is_refused() -> None:
    one = learner()
    one.optimizer.param_groups[0]["hook"] = print
    with pytest.raises(
        ValueError, match=r"a checkpoint can only hold plain data and tensors: optimizer\.param_groups\.0\.hook"
    ):
        checkpoint(one, 0)


def test_there_is_no_pickle_in_a_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, checkpoint(learner(), 1), keep=1)
    assert sorted(path.name for path in (tmp_path / "00000001").iterdir()) == ["m.safetensors", "state.json"]
    (tmp_path / "00000001" / "state.json").write_bytes(b"\x80\x04.")
    with pytest.raises(DamagedError):
        read(tmp_path / "00000001")


def files_of(folder: Path) -> dict[str, int]:
    """Name -> inode of the tensors in a checkpoint."""
    return {path.stem: path.stat().st_ino for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_checkpoint_writes_what_has_changed_and_shares_no_file_with_its_neighbour(tmp_path: Path, keep: int) -> None:
    ours = [named(name) for name in "abc"]
    written: list[str] = []

    def write(path: Path, data: bytes) -> None:
        written.append(path.stem)
        write_bytes(path, data)

    console = Console(file=io.StringIO())
    checkpointer = Checkpointer(tmp_path, ours, "c", CheckpointConfig(1, keep), console, lambda: False, write=write)
    checkpointer.begin([0, 0, 0], 0, resumed=False)
    done, inodes = [0, 0, 0], [files_of(tmp_path / "00000000")]
    for job, learner in enumerate([0, 1, 0, 0, 0, 2], 1):
        written.clear()
        ours[learner].apply(np.random.default_rng(job).normal(size=12))
        done[learner] += 1
        checkpointer.applied(done, job)
        assert checkpointer.finish()
        inodes.append(files_of(tmp_path / f"{job:08d}"))
        saved, damaged = newest(tmp_path)
        assert ([saved.steps[name] for name in "abc"], damaged) == (done, [])
        for one in ours:
            for key, tensor in one.model.state_dict().items():
                assert torch.equal(saved.snapshots[one.name].model[key], tensor)
        if keep > 1:
            assert not set(inodes[-1].values()) & set(inodes[-2].values())
    # The last but one changed "a" alone: with what is copied or linked, that is all there was to encode.
    assert written == ["c", "state"] + ([] if keep == 1 else ["a"])
    checkpointer.close()


@pytest.mark.parametrize(
    ("every", "seconds", "numbers"),
    # A checkpoint of .04 s takes a twentieth of the time of 80 jobs, four of which it lasts itself.
    [
        (None, 0.04, [0, 76, 152]),
        (None, 0.002, [0, 50, 100, 150, 200]),
        (40, 0.04, [0, 40, 80, 120, 160, 200]),
        (0, 0.04, [0]),
    ],
)
def test_checkpoints_that_take_long_are_rare_unless_their_number_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None, seconds: float, numbers: list[int]
) -> None:
    now = 0.0

    def write(path: Path, data: bytes) -> None:
        nonlocal now
        now += seconds / 2  # of two files
        write_bytes(path, data)

    monkeypatch.setattr("distseq.cluster.system.pace.time.monotonic", lambda: now)
    one, console = learner(), Console(file=io.StringIO())
    checkpointer = Checkpointer(tmp_path, [one], "c", CheckpointConfig(every, 99), console, lambda: False, write=write)
    checkpointer.begin([0], 0, resumed=False)
    for job in range(1, 201):
        now += 0.01
        checkpointer.applied([job], job)
        checkpointer._writer.flush()
    checkpointer.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == numbers


def named(name: str) -> Learner:
    one = learner()
    one.name = name
    return one
