"""Triton's kernels give the loop's values and gradients in the interpreter, and say why where they cannot serve."""

from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch

from distseq.kernels.backend import TRITON, choose
from tests.kernels.comparing import drawn
from tests.kernels.triton_cases import CASES, INTERPRETED
from tests.kernels.triton_tools import python

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

every = pytest.mark.parametrize("name", INTERPRETED)


def refusal() -> str | None:
    """Why the interpreter cannot run; None where it can. Before 3.7 it makes the bound of a loop, an array of one axis, an int,
    which numpy allows up to 2.3."""
    if find_spec("triton") is None:
        return "triton is not installed"
    found = {name: tuple(int(part) for part in version(name).split(".")[:2]) for name in ("triton", "numpy")}
    if found["triton"] < (3, 7) and found["numpy"] >= (2, 4):
        return f"Triton's interpreter before 3.7 needs numpy < 2.4: {version('triton')} with {version('numpy')}"
    return None


@pytest.mark.slow
@pytest.mark.skipif(refusal() is not None, reason=str(refusal()))
@pytest.mark.parametrize("op", sorted({small.case.op for small in INTERPRETED.values()}))
@pytest.mark.parametrize("which", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_values_and_gradients_are_those_of_the_loop(op: str, which: str) -> None:
    """In a process of its own, where Triton interprets."""
    checks = ("tests/kernels/interpreted/checks.py", "-k", op, "-m", which)
    assert " passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", *checks, interpret=True)


@every
def test_it_wants_a_gpu_where_nothing_interprets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = INTERPRETED[name]
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("DISTSEQ_KERNELS", f"{small.case.op}=triton")
    with pytest.raises(ValueError, match=rf"{small.case.op} cannot run on triton, .*: its tensors are on cpu"):
        small.case.run(drawn(small.case, small.B, small.T, small.H, small.D, dtype=torch.float32))


@pytest.mark.parametrize(
    ("name", "D", "reason"),
    [
        ("rnn-lstm", 3, "a head size must be a power of two .*: got 3"),
        ("rnn-lstm", 256, "a head size must be a power of two .*: got 256"),
        ("scan-complex", 4, "its Triton kernel computes in bfloat16, float16, float32: got complex64"),
        ("linear_attention-vector", 4, "its decay is one for each key"),
        ("linear_attention-scalar", 4, "a head size must be a power of two .*: got 5"),
        ("delta_rule-square", 256, "a head size must be a power of two from 2 to 128 in float32: got 256"),
    ],
)
def test_what_it_cannot_do_is_named(name: str, D: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("DISTSEQ_KERNELS", f"{case.op}=triton")
    with pytest.raises(ValueError, match=f"{case.op} cannot run on triton, as DISTSEQ_KERNELS requests: {reason}"):
        case.run(drawn(case, 1, 2, 1, D, dtype=torch.float32))


@pytest.mark.parametrize("op", TRITON)
def test_nothing_runs_by_default_before_it_is_measured(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTSEQ_KERNELS", raising=False)
    for heads in ((), (64,), (64, 64)):
        assert choose(op, torch.device("cuda"), torch.bfloat16, heads) == "eager"
