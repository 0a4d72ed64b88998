"""Timed events between nodes: streams, their readers and generators, splits and statistics."""

from distseq.models.data.events.stream import EventStream as EventStream
