"""Readers of event data, one format a file, and the list of them."""

from distseq.models.data.events.readers.registry import open_events as open_events
