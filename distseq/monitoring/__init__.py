"""Observers of a run: counts for the summary, the display on the terminal, gradient checks, metrics."""
