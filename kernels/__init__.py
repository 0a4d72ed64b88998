"""Fused sequence primitives (recurrences, scans, linear attention, convolutions) and layers."""

if __name__ == "kernels":
    raise ImportError("import distseq.kernels, not kernels")

from distseq.kernels.composed import lightnet, mlstm
from distseq.kernels.primitives import (
    attention,
    delta_rule,
    dense_rnn,
    fft_conv,
    linear_attention,
    max_scan,
    prefix_softmax,
    rnn,
    scan,
    selective_scan,
    short_conv,
)

__all__ = [
    "attention",
    "delta_rule",
    "dense_rnn",
    "fft_conv",
    "lightnet",
    "linear_attention",
    "max_scan",
    "mlstm",
    "prefix_softmax",
    "rnn",
    "scan",
    "selective_scan",
    "short_conv",
]
