"""Gradient codes."""
