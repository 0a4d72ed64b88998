"""Coding schemes, which decide which worker computes what in which round."""
