"""Readers of event data, one format a file, and the list of them."""
