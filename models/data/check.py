"""Reads files whose readers are C++ programs once over, for a process that may crash on a damaged one.

Imports no torch: such a process should start quickly.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Import string of `read_over`, for whoever has such a process.
READ_OVER = "distseq.models.data.check:read_over"
CHECKED = ("parquet", "hf")


def files_to_check(spec: str) -> list[Path]:
    """The files that `read_over` would read: those whose formats are offsets and sizes that a damaged file may have wrong.

    >>> files_to_check("csv:table.csv")
    []
    """
    prefix, _, path = spec.partition(":")
    if prefix not in CHECKED or "\0" in path:
        return []
    files = [Path(path)] if prefix == "parquet" else sorted(Path(path).rglob("*.arrow"))
    return [file for file in files if file.is_file()]


def read_over(spec: str, args: Mapping[str, Any]) -> None:
    """Reads the data of a spec, keeping nothing. Whatever is wrong is raised; a MemoryError is passed on as it is."""
    prefix, _, path = spec.partition(":")
    if prefix == "parquet":
        from distseq.models.data.tables.parquet import batches

        for _ in batches(path, args.get("columns")):
            pass
    if prefix == "hf":
        import pyarrow as pa

        for file in files_to_check(spec):
            with pa.memory_map(str(file)) as source:
                for batch in pa.ipc.open_stream(source):
                    batch.validate(full=True)
