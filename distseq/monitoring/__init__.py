"""Observers of a run: tallies, live display, gradient checks."""
