"""Decides which Ray a run uses: the one at a given address, at RAY_ADDRESS, of this process, or a local one of its own. Pure.

The order is Ray's own, except that a run without any address does not join whatever cluster `ray start` left on the machine:
that is what `auto` is for.
"""

from collections.abc import Mapping
from typing import NamedTuple

LOCAL, AUTO, HERE = "local", "auto", "here"
# Set by Ray's job manager for the driver of a submitted job.
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class Running(NamedTuple):
    """The Ray that this process is already connected to."""

    address: str  # HOST:PORT of its control store
    own: bool  # this process has started it


def choose(given: str, environment: Mapping[str, str], running: Running | None) -> str:
    """HERE for the Ray of this process, LOCAL, AUTO (a cluster of this machine), or HOST:PORT.

    given: the address that was asked for, "" for none. ValueError, with the way out, for an address that cannot be used.
    """
    if running is not None:
        return _beside(given, running)
    named, where = given, "address"
    # Ray, too, takes RAY_ADDRESS where it is told to find a cluster by itself.
    if given in ("", AUTO) and environment.get("RAY_ADDRESS"):
        named, where = environment["RAY_ADDRESS"], "RAY_ADDRESS"
    named = named or LOCAL
    if named == LOCAL and JOB in environment:
        raise ValueError(
            f"{where} {LOCAL!r} would start a second Ray inside a Ray job: leave the address out to use the job's cluster"
        )
    if named not in (LOCAL, AUTO):
        check_format(named, where)
    return named


def check_format(address: str, where: str = "address") -> tuple[str, int]:
    """Host and port of HOST:PORT. ValueError, with the way out, for anything else; `where` is what the address came from."""
    scheme, found, _ = address.partition("://")
    if found and scheme in ("http", "https"):
        raise ValueError(
            f"{where} {address!r} is that of a dashboard, which takes jobs: train there with distseq submit --address {address}"
        )
    if found:
        raise ValueError(
            f"{where} {address!r}: {scheme}:// addresses are those of Ray Client, through which distseq cannot train: "
            "submit a job with distseq submit --address http://HOST:8265, or train on a machine of the cluster with "
            "--address auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or any(c.isspace() or c in "/@?" for c in host):
        raise ValueError(f"{where} must be HOST:PORT, auto or local: got {address!r}")
    return host.strip("[]"), int(port)


def _beside(given: str, running: Running) -> str:
    """What a given address means in a process that has a Ray, which can be connected to one cluster only."""
    if given in ("", AUTO) or (given == LOCAL and running.own):
        return HERE
    if given != LOCAL and check_format(given) == check_format(running.address):
        return HERE
    raise ValueError(
        f"this process is already connected to Ray at {running.address}: leave the address out to use it, or call "
        f"ray.shutdown() before training at {given!r}"
    )
