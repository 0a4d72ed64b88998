"""Fused sequence primitives; the layers every model is built from."""

if __name__ == "kernels":
    raise ImportError("import distseq.kernels, not kernels")
