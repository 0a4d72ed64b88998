"""Sigmoid, tanh and log-sigmoid for kernels, from exponentials that cannot overflow."""

import triton
import triton.language as tl

# Whether kernels run in Triton's interpreter. Triton reads this when it decorates a kernel, so that it holds for the process.
INTERPRETED: bool = triton.knobs.runtime.interpret


# From tl.exp, since libdevice's functions do not exist in the interpreter. Of -|x|, since (1 - e^-2x) / (1 + e^-2x), the usual
# form of tanh, is NaN in float32 for x < -44.4: both exponentials overflow.
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
