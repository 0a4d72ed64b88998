"""`distseq events`: what large temporal batches of an event stream lose, and which mode will pay."""

import json
import tomllib
from dataclasses import asdict
from typing import Any

import click

from distseq.cli.json_output import only_json

BATCHES = (50, 200, 800, 3200)


@click.command()
@click.argument("name")
@click.option(
    "--batch",
    "batches",
    type=int,
    multiple=True,
    help="Temporal batch, in events; may be repeated.  [default: 50, 200, 800, 3200]",
)
@click.option(
    "--arg",
    "args",
    multiple=True,
    metavar="KEY=VALUE",
    help="Argument of the reader, such as sort=true; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the statistics as a JSON object.")
def events(name: str, batches: tuple[int, ...], args: tuple[str, ...], as_json: bool) -> None:
    """Show statistics of an event stream, by temporal batch.

    NAME is a specification of event data: flights (comes with distseq), jodie:FILE.csv, ml:ml_NAME.csv, snap:FILE.txt,
    tgb:FILE.npz, tgb-seq:NAME.csv, tgl:FOLDER, npz:FILE.npz, folder:FOLDER, or a generator, sequence or hubs.

    pending: events that share a node with an earlier one of their batch, so that their memory is stale. dropped: messages that
    aggregation `last` leaves out. depth: levels of a batch that mode `exact` goes through one after the other: mean, 95th
    percentile and maximum. The last line says which mode to use.

    Example: distseq events flights

    Example: distseq events snap:CollegeMsg.txt --arg sort=true --batch 200 --batch 1000
    """
    from distseq.models.data.events import open_events

    with only_json(as_json) as write:
        stream = open_events(name, **_arguments(args)).stream
        found = _statistics(stream, sorted(set(batches)) or BATCHES)
        if as_json:
            write(json.dumps({"name": name, **found}))
    if not as_json:
        click.echo("\n".join(_lines(name, found)))


def _statistics(stream: Any, batches: Any) -> dict[str, Any]:
    from distseq.models.data.events.advice import advice
    from distseq.models.data.events.statistics import of_batch, recurrence

    by_batch = [of_batch(stream, batch) for batch in batches]
    return {
        "events": len(stream),
        "nodes": stream.nodes,
        "features": stream.features,
        "bytes": stream.bytes,
        "span": int(stream.t[-1]) - int(stream.t[0]),
        **asdict(recurrence(stream)),
        "batches": [asdict(one) for one in by_batch],
        "advice": advice(by_batch),
    }


def _lines(name: str, found: dict[str, Any]) -> list[str]:
    from distseq.simulation.tables import aligned

    rows = [["batch", "pending", "dropped", "depth", "p95", "max", "events a level"]]
    for one in found["batches"]:
        depth = (f"{one['depth_mean']:.0f}", f"{one['depth_p95']:.0f}", f"{one['depth_max']}")
        rows.append(
            [f"{one['batch']}", f"{one['pending']:.2f}", f"{one['dropped']:.2f}", *depth, f"{one['width']:.1f}"]
        )
    return [
        f"{name}: {found['events']:,} events of {found['nodes']:,} nodes in {found['span']:,} units of time, "
        f"{found['features']} message features, {found['bytes'] / 1e6:.1f} MB",
        f"src repeats its last dst: {found['repeats']:.2f}, edge seen before: {found['seen']:.2f}, "
        f"time of the event before: {found['ties']:.2f}",
        *aligned(rows, ">" * len(rows[0])),
        found["advice"],
    ]


def _arguments(args: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE as keyword arguments; a value that is none of TOML is text."""
    found: dict[str, Any] = {}
    for arg in args:
        key, equals, value = arg.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--arg takes KEY=VALUE: got {arg!r}")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found
