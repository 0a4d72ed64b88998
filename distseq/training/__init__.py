"""Runs: from a config file or learners made in Python to trained models in a run folder."""
