"""Gradient codes, coding schemes, the ledger and straggler models: pure mathematics, no clock, no I/O."""

if __name__ == "coding":
    raise ImportError("import distseq.coding, not coding")
