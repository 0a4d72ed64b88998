"""`tgb-seq:NAME.csv`: a data set as TGB-Seq publishes it (Yi et al. 2025), with NAME_test_ns.npy beside it."""

from pathlib import Path

import numpy as np

from distseq.models.data.columns import choose
from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers import columns
from distseq.models.data.events.readers.build import build, naming
from distseq.models.data.events.readers.ml_csv import read_rows
from distseq.models.data.events.split import from_column
from distseq.models.data.files import check_file
from distseq.models.data.tables.csv_table import CsvTable


def open_tgb_seq(path: str, negatives: bool = True, sort: bool = False) -> EventData:
    """Columns src, dst, time and split (0, 1, 2), and for each test event, in the file's order, the destinations that rank it.

    Nodes keep the numbers of the file, which begin with 1. message: NAME_edge_feat.npy (E, F), if it lies beside the file.
    negatives: reads NAME_test_ns.npy (test events, K). sort: as for `jodie`. ValueError, naming file and row.
    """
    spec = f"tgb-seq:{path}"
    check_file(f"data {spec!r}", path)
    table = CsvTable(spec, path, named=columns.pandas_names)
    parsers = {name: columns.ids() for name in ("src", "dst", "time", "split")}
    choose(spec, table.names, list(parsers))
    found = columns.read_columns(spec, table, parsers)
    events, base = len(found["time"]), Path(path).with_suffix("")
    features = base.with_name(f"{base.name}_edge_feat.npy")
    message = read_rows(spec, features, events) if features.exists() else None
    ranked = base.with_name(f"{base.name}_test_ns.npy")
    test = np.flatnonzero(found["split"] == 2)
    against = read_rows(spec, ranked, len(test)) if negatives else None
    nodes = 1 + max(int(each.max()) for each in (found["src"], found["dst"], against) if each is not None and each.size)
    ends = {"src": found["src"], "dst": found["dst"], "nodes": nodes}
    stream, order = build(spec, found["time"], sort, table.where, message=message, **ends)
    with naming(spec, table.where):
        split = from_column(found["split"][order])
        if against is not None and not isinstance(order, slice):
            # Row k of the file of negatives belongs to the k-th test row of the other file, wherever sorting has put it.
            against = against[np.searchsorted(test, order[split.test])]
        return EventData(stream, split, against)
