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
@every
def test_its_values_and_gradients_are_those_of_the_loop(name: str) -> None:
    python(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/kernels/interpreted/checks.py",
        "-k",
        f"[{name}]",
        interpret=True,
    )


@every
def test_it_wants_a_gpu_where_nothing_interprets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = INTERPRETED[name]
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("DISTSEQ_KERNELS", f"{small.case.op}=triton")
    with pytest.raises(ValueError, match=rf"{small.case.op} cannot run on triton, .*: its tensors lie on the cpu"):
        small.case.run(drawn(small.case, small.B, small.T, small.H, small.D, dtype=torch.float32))
