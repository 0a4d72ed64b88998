"""The eager backend: plain PyTorch with hand-written backward passes, for every device."""
