"""Gradient codes: fractional repetition, and dense codes such as the cyclic one."""
