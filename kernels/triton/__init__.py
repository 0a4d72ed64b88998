"""Triton kernels, imported only when chosen."""

import triton as triton  # says at once why it cannot be used
