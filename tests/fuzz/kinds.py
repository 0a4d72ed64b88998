"""All kinds of files and messages that are fuzzed."""

from tests.fuzz import archives, messages, runs, tables

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
        messages.REPORTS,
        messages.FRAMES,
    )
}
