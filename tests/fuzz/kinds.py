"""All kinds of files and messages that are fuzzed."""

from tests.fuzz import archives, events, messages, runs, tables

KINDS = {
    kind.name: kind
    for kind in (
        runs.CONFIG,
        archives.TRACE,
        tables.TRACE_CSV,
        runs.JOURNAL,
        runs.JOURNAL_RESUMED,
        runs.STATE,
        runs.WEIGHTS,
        tables.DATA_CSV,
        tables.PARQUET,
        archives.ARRAYS,
        tables.TEXT,
        events.EVENTS_NPZ,
        events.JODIE,
        events.SNAP,
        events.EVENTS_NPY,
        events.EVENTS_HEADER,
        messages.REPORTS,
        messages.FRAMES,
    )
}
