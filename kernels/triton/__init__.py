"""The Triton backend, imported only when it is chosen."""

# Imported here, so that backend.choose learns at once whether and why Triton is missing.
import triton as triton
