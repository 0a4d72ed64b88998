"""`tgl:DIR`: a data set folder of TGL (Zhou et al. 2022): edges.csv, and edge_features.pt if there is one."""

from pathlib import Path

from distseq.models.data.columns import choose
from distseq.models.data.dataset import one_line
from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers import columns
from distseq.models.data.events.readers.build import build, naming
from distseq.models.data.events.split import from_column
from distseq.models.data.files import check_file
from distseq.models.data.tables.csv_table import CsvTable


def open_tgl(path: str, sort: bool = False, ticks: int = 1) -> EventData:
    """Columns src, dst, time and ext_roll, which is the split (0, 1, 2); message: the tensor (E, F) of edge_features.pt."""
    spec, file, features = f"tgl:{path}", Path(path) / "edges.csv", Path(path) / "edge_features.pt"
    check_file(f"data {spec!r}: edges.csv", str(file))
    columns.check_ticks(spec, ticks)
    table = CsvTable(spec, str(file), named=columns.pandas_names)
    parsers = {name: columns.ids() for name in ("src", "dst", "ext_roll")} | {"time": columns.numbers()}
    choose(spec, table.names, list(parsers))
    found = columns.read_columns(spec, table, parsers)
    message = None
    if features.exists():
        # Here, because reading events without such a file needs no torch.
        import torch

        try:
            message = torch.load(features, map_location="cpu", weights_only=True).float().numpy()
        # A damaged or foreign file may make it raise anything.
        except Exception as error:
            raise ValueError(f"can't read data {spec!r}: edge_features.pt: {one_line(error)}") from None
    with naming(spec, table.where):
        t = columns.whole_times(found["time"], ticks)
    stream, order = build(spec, t, sort, table.where, src=found["src"], dst=found["dst"], message=message)
    with naming(spec, table.where):
        return EventData(stream, from_column(found["ext_roll"][order]))
