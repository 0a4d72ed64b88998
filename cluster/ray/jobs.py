"""Submits, follows and stops Ray jobs through the HTTP address of a cluster's dashboard.

A request that the cluster refuses raises a ValueError that says what to do; a cluster lost during a job raises a PoolError.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import ray.exceptions
from ray.job_submission import JobStatus, JobSubmissionClient

from distseq.cluster.errors import PoolError
from distseq.cluster.ray.auth_token import client_token, refusal, without_authentication
from distseq.cluster.ray.control_store import connect
from distseq.cluster.ray.session import Access, loopback, set_variables

# Seconds to wait for a job agent. A head that has just started has none for about 20 s.
AGENT = 60.0
# Failed attempts in a row, PAUSE seconds apart, before the cluster counts as lost: a dashboard that restarts is back sooner.
LOST = 10
PAUSE = 1.0
# Loggers that report every upload and every closed connection among the output of the user's run.
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
NO_AGENT = "No available agent to submit job"
AGENT_IS_MISSING = (
    "no job agent answers on the cluster at {address} after {seconds:.0f} s: the head may still be starting, or another "
    "Ray on its machine holds the agent's port (52365): start the head with --dashboard-agent-listen-port=PORT"
)


class JobServer:
    """The job server of a running cluster, at http://HOST:8265. Sets Ray's variables for its token.

    ValueError if there is none, if it refuses the token, or if it has no authentication although other machines can reach it.
    """

    def __init__(self, access: Access) -> None:
        self.address = access.address
        for module in TALKATIVE:
            logging.getLogger(module).setLevel(logging.ERROR)
        host = _reachable(self.address)
        token = client_token(os.environ, Path.home(), Path(access.token_file) if access.token_file else None)
        self.source = token.source  # where the client's token comes from
        set_variables(token.variables)
        # Ray would prefer these to the address that it is given.
        for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            os.environ.pop(variable, None)
        with self._explained():
            self._client: Any = JobSubmissionClient(self.address)
            self._check_closed(host, access.insecure)

    def _check_closed(self, host: str, insecure: bool) -> None:
        """ValueError for a server without authentication that other machines can reach."""
        answer = self._client._do_request("GET", "/api/authentication_mode")
        mode = answer.json().get("authentication_mode") if answer.status_code == 200 else "disabled"
        if mode == "disabled" and not insecure and not loopback(host):
            raise ValueError(without_authentication(self.address))

    def submit(
        self,
        job: str,
        entrypoint: str,
        runtime_env: dict[str, Any],
        say: Callable[[str], object],
        *,
        metadata: dict[str, str] | None = None,
        node: str | None = None,
    ) -> None:
        """Upload the files of `runtime_env` and start the job under the id `job`, on a certain node if one is given.

        ValueError if the cluster refuses it.
        """
        # Ray would reserve CPUs of the node, or let the job run elsewhere, with any other kind of request.
        where = {} if node is None else {"entrypoint_label_selector": {"ray.io/node-id": node}}
        # Only a missing agent is waited for: every other refusal would be the same the next time.
        end, waiting = time.monotonic() + AGENT, False
        while True:
            try:
                with self._explained():
                    self._client.submit_job(
                        submission_id=job, entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata, **where
                    )
                return
            except ValueError as error:
                if NO_AGENT not in str(error):
                    raise
                if time.monotonic() > end:
                    raise ValueError(AGENT_IS_MISSING.format(address=self.address, seconds=AGENT)) from None
            if not waiting:
                say(f"the cluster has no job agent yet: trying again for {AGENT:.0f} s")
            waiting = True
            time.sleep(PAUSE)

    def details(self, job: str) -> Any:
        """Ray's JobDetails. ValueError if the cluster does not know the job."""
        with self._explained():
            try:
                return self._client.get_job_info(job)
            except RuntimeError as error:
                if "404" not in str(error):
                    raise
                raise ValueError(f"the Ray cluster at {self.address} knows no job {job!r}") from None

    def output(self, job: str, within: float) -> str:
        """All that a job has written, once it has ended; the job is then forgotten.

        PoolError if it fails, or takes longer than `within` seconds, after which it is stopped.
        """
        end = time.monotonic() + within
        while not (details := self.details(job)).status.is_terminal():
            if time.monotonic() > end:
                self._client.stop_job(job)
                raise PoolError(
                    f"Ray job {job} has not ended within {within:.0f} s: the node that it needs may be gone"
                )
            time.sleep(PAUSE / 4)
        with self._explained():
            text: str = self._client.get_job_logs(job)
            self._client.delete_job(job)
        if details.status != JobStatus.SUCCEEDED:
            raise PoolError(f"Ray job {job} failed: {_first_line(RuntimeError(details.message or text))}")
        return text

    def follow(self, job: str, write: Callable[[str], object], say: Callable[[str], object]) -> int:
        """Write the job's logs until it ends. Returns its exit code: 1 if Ray knows none, 130 if it was stopped.

        The first KeyboardInterrupt asks the job to stop, the second is raised. PoolError if the cluster is lost.
        """
        log, asked, failures = _Log(write), False, 0
        while True:
            try:
                details = self._until_it_ends(job, log)
                failures = 0
                if details.status.is_terminal():
                    return _exit_code(job, details, say)
                time.sleep(PAUSE)
            except KeyboardInterrupt:
                if asked:
                    say(f"left Ray job {job}, which was asked to stop")
                    raise
                asked = True
                say(f"asking Ray job {job} to stop; press Ctrl-C again to leave at once")
                with contextlib.suppress(OSError, RuntimeError):
                    self._client.stop_job(job)
            # A dashboard that restarts, or a proxy that drops the connection: the job itself goes on, so the client comes back.
            except (OSError, RuntimeError) as error:
                failures += 1
                if failures == LOST:
                    lost = f"lost the cluster at {self.address}; Ray job {job} may still be running there"
                    raise PoolError(f"{lost}: {_first_line(error)}") from error
                time.sleep(PAUSE)

    def _until_it_ends(self, job: str, log: "_Log") -> Any:
        asyncio.run(self._tail(job, log))
        return self._client.get_job_info(job)

    async def _tail(self, job: str, log: "_Log") -> None:
        log.rewind()
        async for text in self._client.tail_job_logs(job):
            log.add(text)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ray.exceptions.AuthenticationError as error:
            status = 403 if error.message.startswith("Authentication failed") else 401
            raise ValueError(refusal(self.address, status, self.source)) from None
        except (OSError, RuntimeError) as error:
            raise ValueError(f"the Ray cluster at {self.address} refuses the request: {_first_line(error)}") from None


class _Log:
    """Writes each character of a job's log once, although Ray sends the log from its beginning on each request."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write, self._written, self._at = write, 0, 0

    # Each connection gets the log from its beginning: `_at` counts what came on this one, `_written` what was ever written.
    def rewind(self) -> None:
        self._at = 0

    def add(self, text: str) -> None:
        new = text[max(0, self._written - self._at) :]
        self._at += len(text)
        if new:
            self._write(new)
            self._written = self._at


def _exit_code(job: str, details: Any, say: Callable[[str], object]) -> int:
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        say(f"Ray job {job} was stopped")
        return 130
    message = (details.message or "Ray gives no reason").partition(", last available logs")[0]
    say(f"Ray job {job} failed: {' '.join(message.splitlines()[:1])}")
    code = details.driver_exit_code or 1
    # Ray reports -N for a driver that signal N has ended; shells report 128 + N.
    return int(code) if code > 0 else 128 - int(code)


def _reachable(address: str) -> str:
    """The host of an http address. ValueError unless it accepts connections; with a proxy, that is left to the client."""
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)
    except ValueError:
        host, port = None, None
    if host is None or port is None or url.scheme not in ("http", "https"):
        raise ValueError(f"the address of a cluster's job server must be like http://HOST:8265: got {address!r}")
    if url.scheme not in getproxies():
        connect(host, port, address)
    return host


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).splitlines()[:1]) or type(error).__name__
