"""Triton's kernels give the loop's values and gradients in the interpreter, and say why where they cannot serve."""

from importlib.util import find_spec

import pytest
import torch

from tests.kernels.comparing import drawn
from tests.kernels.triton_cases import INTERPRETED
from tests.kernels.triton_tools import python

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

every = pytest.mark.parametrize("name", INTERPRETED)


@pytest.mark.slow
@pytest.mark.parametrize("op", sorted({small.case.op for small in INTERPRETED.values()}))
def test_values_and_gradients_are_those_of_the_loop(op: str) -> None:
    """In a process of its own, where Triton interprets."""
    checks = ("tests/kernels/interpreted/checks.py", "-k", op)
    assert " passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", *checks, interpret=True)


@every
def test_it_wants_a_gpu_where_nothing_interprets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = INTERPRETED[name]
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("DISTSEQ_KERNELS", f"{small.case.op}=triton")
    with pytest.raises(ValueError, match=rf"{small.case.op} cannot run on triton, .*: its tensors lie on the cpu"):
        small.case.run(drawn(small.case, small.B, small.T, small.H, small.D, dtype=torch.float32))


def test_a_head_that_its_products_cannot_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSEQ_KERNELS", "rnn=triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    case = INTERPRETED["rnn-lstm"].case
    for D in (3, 256):
        with pytest.raises(
            ValueError, match=f"rnn cannot run on triton, .*: a head must be a power of two .*: got {D}"
        ):
            case.run(drawn(case, 1, 1, 1, D, dtype=torch.float32))
