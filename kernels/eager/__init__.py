"""The CPU path, in plain PyTorch with hand-written backward passes; runs on every device."""
