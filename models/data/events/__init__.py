"""Timed events between nodes: streams, their readers and generators, splits and statistics."""

from distseq.models.data.events.data import EventData as EventData
from distseq.models.data.events.readers.registry import open_events as open_events
from distseq.models.data.events.stream import EventStream as EventStream
