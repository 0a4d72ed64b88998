"""Schedulers: pure state machines that assign work to workers and decide when enough rows have arrived."""
