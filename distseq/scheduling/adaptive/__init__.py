"""Adaptive scheduling: choose among candidates by replaying what was observed."""
