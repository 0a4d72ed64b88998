"""Connects this process to Ray: to the Ray it has already, to a cluster, or to a local Ray of its own.

`locate` does everything but connect, so that `distseq doctor` finds fault where a run would.
"""

import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray._raylet
from ray._private import ray_constants, services
from ray._private.utils import read_ray_address

from distseq.cluster.ray import control_store
from distseq.cluster.ray.address import AUTO, HERE, JOB, LOCAL, Running, check_format, choose
from distseq.cluster.ray.auth_token import client_token, refusal, sent_token, without_authentication
from distseq.cluster.system.cpus import usable_cpus

STARTING = 30.0  # seconds that a cluster without nodes may take to get its first
CLUSTER_FILE = "the file that `ray start` leaves, ray_current_cluster,"
# Ray then takes 127.0.0.1 for the address of this machine, as it does on macOS and Windows, and each of its processes listens
# there alone. _node_ip_address does not do: it is turned into the machine's outer address.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@dataclass(frozen=True)
class Access:
    """How to reach a Ray, and what of it is accepted."""

    address: str = ""  # HOST:PORT, auto, local; "" = RAY_ADDRESS, else the Ray of this process, else local
    token_file: str = ""
    insecure: bool = False  # accept a cluster without authentication that other machines can reach
    log_to_driver: bool = True  # print what workers print


class Place(NamedTuple):
    """HERE, LOCAL, or HOST:PORT of a cluster that admits this process; and what a user should be warned of."""

    address: str
    warning: str = ""


def locate(access: Access) -> Place:
    """Which Ray `access` means. Sets Ray's variables for its token, if it needs one.

    ValueError, within seconds, if there is none, or if it does not admit this process or cannot be trusted.
    """
    running = _running()
    chosen = choose(_resolved(access.address, running), os.environ, running)
    if chosen == LOCAL:
        return Place(LOCAL)
    if chosen == HERE:
        assert running is not None
        return Place(HERE, "" if running.own or access.insecure else _open_cluster(running.address))
    address = _of_this_machine() if chosen == AUTO else chosen
    token = _admitted(address, access)
    warning = "" if token is not None else _open_cluster(address)
    # A job of this cluster has brought it everything already: refusing to train there would protect nothing.
    if warning and not access.insecure and JOB not in os.environ:
        raise ValueError(warning)
    _check_node(address, token)
    return Place(address, "" if access.insecure else warning)


class Session:
    """A connection to Ray. `close` ends it, and a local Ray with it, but never the Ray that this process had before.

    say: takes lines for the user. ValueError as in `locate`.
    """

    def __init__(self, access: Access, say: Callable[[str], object]) -> None:
        self._before: dict[str, str | None] = {}
        place = locate(access)
        if place.warning:
            say(f"warning: {place.warning}")
        self._owns = place.address != HERE
        if self._owns:
            _connect(place.address, access.log_to_driver, self._set)

    def close(self) -> None:
        if self._owns and ray.is_initialized():
            ray.shutdown()
        if self._before:
            self._set({})

    def _set(self, variables: Mapping[str, str]) -> None:
        """Sets variables, until they are set again or the session is closed."""
        for name, value in self._before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        self._before = {name: os.environ.get(name) for name in variables}
        set_variables(variables)


def _connect(address: str, log_to_driver: bool, set_variables: Callable[[Mapping[str, str]], None]) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": log_to_driver, "logging_level": "error"}
    if address == LOCAL:
        # A token for this Ray alone, in the environment, which no other user can read: Ray itself would write one into a file.
        set_variables({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), LOOPBACK: "0"})
        # A local run needs no dashboard, which costs a second to start and 80 MB.
        options |= {"num_cpus": usable_cpus(), "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **options)
        # Ray sets a handler that ends the process with exit code 15. A program's own stays; without one, Ray's is kept, which
        # lets the run clean up.
        if before not in (None, signal.SIG_DFL) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        set_variables({})
        reason = " ".join(str(error).splitlines()[:1])
        raise ValueError(f"cannot start or reach Ray at address {address!r}: {reason}") from error


def set_variables(variables: Mapping[str, str]) -> None:
    """Sets environment variables, and has Ray read its own again, which it does by itself only when it is imported."""
    os.environ |= variables
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(LOOPBACK, str(int(sys.platform == "linux"))) in (
        "1",
        "true",
        "True",
    )
    compiled: Any = ray._raylet
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


def _running() -> Running | None:
    if not ray.is_initialized():
        return None
    return Running(ray.get_runtime_context().gcs_address, starter())


def starter() -> bool:
    """Whether this process has started the Ray that it is connected to."""
    # A worker process, of an actor or a trial, has no node of its own.
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


def _resolved(address: str, running: Running | None) -> str:
    """The address, with the name of the host in it replaced by the one that a running Ray goes by, if both are the same."""
    if running is None or address in ("", AUTO, LOCAL):
        return address
    (host, port), (known, _) = check_format(address), check_format(running.address)
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return address
    # 127.0.0.1 is the head's own name for itself.
    same = known in found or (any(map(loopback, found)) and known == services.get_node_ip_address())
    return f"{known}:{port}" if same else address


def _of_this_machine() -> str:
    """The cluster that runs on this machine: the one started last, if it lives, else the only one that does."""
    named: str | None = read_ray_address(None)
    if named:
        try:
            control_store.admits(named, None)
        except ValueError:
            pass
        else:
            return named
    services.find_gcs_addresses.cache_clear()
    # One on 127.0.0.1 is the local Ray of some other program.
    others: list[str] = [address for address in services.find_gcs_addresses() if not loopback(check_format(address)[0])]
    if len(others) == 1:
        return others[0]
    if len(others) > 1:
        raise ValueError(
            f"several Ray clusters run on this machine, {', '.join(sorted(others))}: name one with --address"
        )
    ways = "start one with `ray start --head`, or name one with --address HOST:PORT"
    if named:
        raise ValueError(
            f"no Ray cluster answers at {named}, the address in {CLUSTER_FILE} of a cluster that is gone: {ways}"
        )
    raise ValueError(f"no Ray cluster runs on this machine: {ways}")


def _admitted(address: str, access: Access) -> str | None:
    """The token that the cluster admits this process with; None if it asks for none. ValueError if it refuses."""
    # A job has its cluster's token in its environment; the file was that of the machine that submitted it.
    file = Path(access.token_file) if access.token_file and JOB not in os.environ else None
    token = client_token(os.environ, Path.home(), file)
    if control_store.admits(address, None):
        return None
    sent = sent_token(os.environ | token.variables, Path.home())
    if sent is None or not control_store.admits(address, sent):
        raise ValueError(refusal(address, 401 if sent is None else 403, token.source, os.environ.get("RAY_AUTH_MODE")))
    set_variables(token.variables)
    return sent


def _open_cluster(address: str) -> str:
    """What is wrong with a cluster that asks for no token, if other machines can reach it; else empty."""
    if not control_store.admits(address, None):
        return ""
    # Not the address: a head that answers at 127.0.0.1 usually listens on all interfaces.
    addresses = control_store.nodes(address, None).values()
    return "" if addresses and all(map(loopback, addresses)) else without_authentication(address)


def _check_node(address: str, token: str | None) -> None:
    """ValueError unless a node of the cluster runs on this machine, which Ray needs and would look for for a minute."""
    # A cluster that has just been started has its nodes some seconds after its control store.
    begun = time.monotonic()
    while not services.find_node_ids() & (nodes := control_store.nodes(address, token)).keys():
        if time.monotonic() - begun < (control_store.SECONDS if nodes else STARTING):
            time.sleep(0.2)
            continue
        raise ValueError(
            f"this machine is no node of the Ray cluster at {address}, so it cannot train there: use "
            "`distseq submit --address http://HOST:8265`, or train on a machine of the cluster"
        )


def loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
