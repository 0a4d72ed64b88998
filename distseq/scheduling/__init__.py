"""Schedulers: pure state machines that assign work and decide when enough rows have arrived."""
