"""`jodie:FILE.csv`: events of users and items as JODIE publishes them (Kumar et al. 2019)."""

import numpy as np

from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers import columns
from distseq.models.data.events.readers.build import bipartite, build, naming
from distseq.models.data.files import check_file
from distseq.models.data.tables.csv_numbers import NumberColumn, is_number
from distseq.models.data.tables.csv_table import CsvTable
from distseq.models.data.tables.growing import Growing

USER, ITEM, TIME, LABEL = NAMES = ("user", "item", "timestamp", "state_label")


def open_jodie(path: str, sort: bool = False, ticks: int = 1) -> EventData:
    """Lines `user,item,timestamp,state_label,feature,feature,...` below a header, which need not name every feature.

    The edge list of tgbl-wiki has this form too. Users and items are numbered apart in the file; in the stream the items follow
    the users. message: the features, (E, F) float32, None if there are none. label: the state label.
    sort: puts events into the order of time, which the file must otherwise have. ticks: units of t in one of the file, for times
    that are fractions. ValueError, naming file and row.
    """
    spec = f"jodie:{path}"
    check_file(f"data {spec!r}", path)
    columns.check_ticks(spec, ticks)

    def named(header: list[str], first: list[str]) -> list[str]:
        if not header or is_number(header[0]):
            raise ValueError(f"data {spec!r} must begin with a header line: user,item,timestamp,state_label,...")
        return [*NAMES, *(f"feature {k}" for k in range(len(first) - len(NAMES)))]

    table = CsvTable(spec, path, named=named)
    features = table.names[len(NAMES) :]
    found = {name: Growing() for name in NAMES}
    messages = Growing()
    parsers = {USER: columns.ids(), ITEM: columns.ids(), TIME: columns.numbers(), LABEL: columns.numbers()}
    # The features of each block become rows at once: as columns, they would take twice the memory when they are joined.
    for values in table.batches(parsers | {name: NumberColumn("float32") for name in features}):
        for name in NAMES:
            found[name].append(values[name])
        if features:
            messages.append(np.stack([values[name].astype(np.float32) for name in features], 1))
    if not len(user := found[USER].array()):
        raise ValueError(f"data {spec!r} has no events")
    with naming(spec, table.where):
        ends = bipartite(user, found[ITEM].array())
        t = columns.whole_times(found[TIME].array(), ticks)
    more = {"label": columns.labels(found[LABEL].array()), "message": messages.array() if features else None}
    return EventData(build(spec, t, sort, table.where, **ends, **more)[0])
