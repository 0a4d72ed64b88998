"""Functions by exp whose exponent is never positive, in the dtype of their argument; and whether this process interprets."""

import triton
import triton.language as tl

# Read when a kernel is decorated, so it holds for the whole process.
INTERPRETED: bool = triton.knobs.runtime.interpret


@triton.jit
def sigmoid(x):
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1.0 + small)


@triton.jit
def tanh(x):
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def logsigmoid(x):
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))
