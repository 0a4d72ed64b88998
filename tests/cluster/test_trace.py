"""Delay traces: what is saved is loaded, what is lost stays lost, and no file is trusted."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.system.atomic_files import write_whole
from distseq.cluster.trace import Trace, TraceWarning, load_trace
from tests.coding.strategies import PROPERTY, generators

sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))


@PROPERTY
@given(
    size=sizes,
    draws=generators(),
    load=st.floats(0, 1e3),
    slope=st.floats(0, 1e3),
    dtype=st.sampled_from(("float32", "float64")),
)
def test_a_trace_is_loaded_as_it_was_saved(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    draws: np.random.Generator,
    load: float,
    slope: float,
    dtype: str,
) -> None:
    times = draws.exponential(1.0, size).astype(dtype)
    times[draws.random(size) < 0.2] = np.nan
    times[draws.random(size) < 0.2] = np.inf
    path = tmp_path_factory.getbasetemp() / "trace.npz"
    Trace(times, load, slope, load / 2).save(path)
    with warnings.catch_warnings():
        # Some of these times are shorter than their compute.
        warnings.simplefilter("ignore", TraceWarning)
        loaded = load_trace(path)
    np.testing.assert_array_equal(loaded.times, times)
    assert (loaded.times.dtype, loaded.load, loaded.slope, loaded.master) == (dtype, load, slope, load / 2)


@PROPERTY
@given(size=sizes, draws=generators(), load=st.floats(0, 3), slope=st.floats(0, 3), invocation=st.integers(0, 40))
def test_a_task_of_the_trace_s_own_load_takes_the_measured_time(
    size: tuple[int, int], draws: np.random.Generator, load: float, slope: float, invocation: int
) -> None:
    times = draws.exponential(1.0, size)
    trace = Trace(times, load, slope)
    for worker in range(size[1]):
        startup = trace.startup(invocation, worker)
        measured = max(times[invocation % size[0], worker], slope * load)
        assert startup + slope * load == pytest.approx(measured, abs=1e-9)


def test_start_up_is_the_time_without_the_compute_of_the_load() -> None:
    trace = Trace(np.array([[2.0, 3.0], [4.0, 5.0]]), load=0.25, slope=4.0)
    assert [trace.startup(k, 0) for k in range(5)] == [1.0, 3.0, 1.0, 3.0, 1.0]
    assert [trace.startup(k, 1) for k in range(3)] == [2.0, 4.0, 2.0]
    assert trace.workers == 2


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_a_time_that_is_no_number_is_a_lost_invocation(lost: float) -> None:
    trace = Trace(np.array([[1.0], [lost]]), load=0.5, slope=1.0)
    assert [trace.startup(k, 0) for k in range(4)] == [0.5, np.inf, 0.5, np.inf]


def test_the_first_workers_of_a_trace_are_its_first_columns() -> None:
    trace = Trace(np.arange(6.0).reshape(2, 3), 0.5, 2.0)
    first = trace.first(2)
    np.testing.assert_array_equal(first.times, [[0.0, 1.0], [3.0, 4.0]])
    assert (first.load, first.slope, trace.first(3).workers) == (0.5, 2.0, 3)
    with pytest.raises(ValueError, match="the trace has 3 workers, but 4 are needed"):
        trace.first(4)


@PROPERTY
@given(size=sizes, draws=generators(), load=st.floats(0, 3), old=st.floats(0, 3), new=st.floats(0, 3))
def test_another_slope_keeps_every_start_up(
    size: tuple[int, int], draws: np.random.Generator, load: float, old: float, new: float
) -> None:
    startups = draws.exponential(1.0, size)
    startups[draws.random(size) < 0.2] = np.inf
    trace = Trace(startups + old * load, load, old, master=0.5)
    np.testing.assert_allclose(trace.startups(), startups, atol=1e-12)
    assert [trace.startup(t, i) for t, i in np.ndindex(*size)] == trace.startups().ravel().tolist()
    other = trace.with_slope(new)
    np.testing.assert_allclose(other.startups(), startups, atol=1e-12)
    assert (other.slope, other.load, other.master) == (new, 0.0, 0.5)


def test_a_start_up_below_zero_is_noise_of_the_measurement_and_counts_as_zero() -> None:
    trace = Trace(np.array([[0.5, 2.0]]), load=1.0, slope=1.0)
    assert trace.startups().tolist() == [[0.0, 1.0]]
    assert trace.with_slope(0.0).startups().tolist() == [[0.0, 1.0]]
    assert trace.with_slope(4.0).startups().tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match=r"load and slope must be finite and >= 0: got load=0.0, slope=-1.0"):
        trace.with_slope(-1.0)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"times": np.ones(4)}, r"`times` must be \(rounds, workers\): got shape \(4,\)"),
    ({"times": np.ones((2, 2, 2))}, r"`times` must be \(rounds, workers\): got shape \(2, 2, 2\)"),
    ({"times": np.ones((0, 4))}, r"`times` must be \(rounds, workers\): got shape \(0, 4\)"),
    ({"times": np.ones((2, 2), dtype=int)}, "must be floating point seconds: got int64"),
    ({"times": np.ones((2, 2), dtype=complex)}, "must be floating point seconds: got complex128"),
    ({"times": np.array([["1.0"]])}, "must be floating point seconds: got <U3"),
    ({"times": np.array([[1.0, -0.5]])}, "must not be negative: got -0.5"),
    ({"load": -0.5}, "load and slope must be finite and >= 0: got load=-0.5, slope=1.0"),
    ({"load": np.nan}, "load and slope must be finite and >= 0: got load=nan, slope=1.0"),
    ({"slope": np.inf}, "load and slope must be finite and >= 0: got load=0.0, slope=inf"),
    ({"slope": -1.0}, "load and slope must be finite and >= 0: got load=0.0, slope=-1.0"),
    ({"master": np.nan}, "master must be finite seconds >= 0: got nan"),
    ({"master": -1.0}, "master must be finite seconds >= 0: got -1.0"),
]
GOOD: dict[str, Any] = {"times": np.ones((2, 2)), "load": 0.0, "slope": 1.0}


@pytest.mark.parametrize(("wrong", "message"), BAD)
def test_a_trace_that_makes_no_sense_is_refused_made_or_loaded(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Trace(**(GOOD | wrong))
    np.savez(tmp_path / "bad.npz", **(GOOD | wrong))
    with pytest.raises(ValueError, match=rf"bad\.npz is not a trace: .*{message}") as error:
        load_trace(tmp_path / "bad.npz")
    assert "\n" not in str(error.value)


def test_single_numbers_may_come_as_arrays_of_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", times=np.ones((2, 2)), load=np.array([0.5]), slope=np.array([[2]]))
    loaded = load_trace(tmp_path / "one.npz")
    assert (loaded.load, loaded.slope) == (0.5, 2.0)


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def unreadable(folder: Path) -> dict[str, str]:
    """file -> what its error says"""
    np.savez(folder / "pickled.npz", **(GOOD | {"times": np.array([[Trap(folder / "sprung")]], dtype=object)}))
    np.savez(folder / "pickled-load.npz", **(GOOD | {"load": np.array(Trap(folder / "sprung"), dtype=object)}))
    np.save(folder / "pickled.npy", np.array([Trap(folder / "sprung")], dtype=object))
    np.save(folder / "array.npy", np.ones((2, 2)))
    np.savez(folder / "no-slope.npz", times=np.ones((2, 2)), load=0.0)
    np.savez(folder / "two-loads.npz", **(GOOD | {"load": np.zeros(2)}))
    np.savez(folder / "words.npz", **(GOOD | {"load": "much"}))
    np.savez(folder / "complex.npz", **(GOOD | {"slope": 1j}))
    (folder / "empty.npz").write_bytes(b"")
    (folder / "text.npz").write_text("times,load,slope\n")
    (folder / "folder.npz").mkdir()
    return {
        "pickled.npz": "Object arrays cannot be loaded",
        "pickled-load.npz": "Object arrays cannot be loaded",
        "pickled.npy": "",
        "array.npy": "the file holds a single array, not an .npz archive",
        "no-slope.npz": "the archive lacks slope",
        "two-loads.npz": "load, slope and master must be single numbers: got shapes (2,), () and ()",
        "words.npz": "",
        "complex.npz": "",
        "empty.npz": "",
        "text.npz": "",
        "folder.npz": "Is a directory",
    }


def test_a_file_that_is_no_trace_is_one_line_and_is_never_unpickled(tmp_path: Path) -> None:
    for name, message in unreadable(tmp_path).items():
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
            load_trace(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name} is not a trace: "), name
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(ValueError, match=r"no trace file .*gone\.npz"):
        load_trace(tmp_path / "gone.npz")


def test_a_damaged_file_is_a_trace_or_one_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    Trace(np.random.default_rng(0).random((6, 4)), 0.0, 1.0).save(path)
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(0, len(whole), 29)]
    damaged += [whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :] for k in range(len(whole))]
    errors = []
    for content in damaged:
        path.write_bytes(content)
        try:
            load_trace(path)
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > len(damaged) / 2
    assert not any("\n" in error for error in errors)


class FullError(Exception):
    """The disk is full."""


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    Trace(np.ones((2, 2)), 0.0, 1.0).save(path)
    before = path.read_bytes()

    def write(file: BinaryIO) -> None:
        file.write(b"half of ")
        raise FullError

    with pytest.raises(FullError):
        write_whole(path, write)
    with pytest.raises(FullError):
        write_whole(tmp_path / "new.npz", write)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_save_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, error in ((tmp_path / "gone" / "trace.npz", FileNotFoundError), (tmp_path / "folder", IsADirectoryError)):
        with pytest.raises(error):
            Trace(np.ones((2, 2)), 0.0, 1.0).save(path)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_save_replaces_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    for workers in (3, 2):
        Trace(np.ones((2, workers)), 0.0, 1.0).save(path)
    assert load_trace(path).workers == 2
    assert list(tmp_path.iterdir()) == [path]
