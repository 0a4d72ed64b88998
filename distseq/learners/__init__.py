"""Learners, fleets of them from a config file or from Python, and their saved state."""
