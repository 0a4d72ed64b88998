"""Triton's kernels fit an H100: compiled for it without one, they stay within its registers and its shared memory."""

from importlib.util import find_spec

import pytest

from tests.kernels.triton_cases import COMPILED, Launch
from tests.kernels.triton_tools import compiled

SHARED = 232448  # bytes that one program may have on sm_90
# Of the recurrent cells, whose kernels are one text, the largest.
OTHER = ("rnn-elman", "rnn-gru", "rnn-slstm")
LAUNCHES = [pytest.param(launch, marks=pytest.mark.long if launch.case in OTHER else ()) for launch in COMPILED]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("launch", LAUNCHES, ids=str)
def test_each_kernel_fits_the_gpu(launch: Launch) -> None:
    kernels = compiled(launch.case)[str(launch)]
    assert kernels
    for name, taken in kernels.items():
        assert taken.registers <= 255, name
        assert taken.shared <= SHARED, name
        assert launch.spills or taken.stack == 0, name
        assert launch.barriers is None or taken.barriers <= launch.barriers, name
