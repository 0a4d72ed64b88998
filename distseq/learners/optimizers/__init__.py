"""Optimizers and learning-rate schedules, built from what a config file says; and Muon, which torch has only in part."""
