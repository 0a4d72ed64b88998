"""Calls functions that may crash, hang or eat all memory in a child process, which is reused until it dies.

For code in C++ that reads files of unknown origin: what it does to the child is reported in one line.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

# Seconds after which a child without work ends.
IDLE = 30.0
# The paths are those of this process, which may run from a zip or an uninstalled tree.
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from distseq.cluster.system.child_call import serve; serve()"
# Arrow's own pool reserves address space far beyond what it uses, which would count against the limit.
ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}


class ChildCall:
    """A child process for one call at a time; it starts with the first one.

    >>> child = ChildCall()
    >>> child.survives("json:dumps", [1], seconds=60, room=1 << 30)
    >>> child.survives("os:abort", [], seconds=60, room=1 << 30)
    'died of SIGABRT'
    >>> child.close()
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def survives(self, target: str, args: list[Any], *, seconds: float, room: int) -> str | None:
        """None once the function "module:name" has returned, or raised; else how the process ended, as in "died of SIGSEGV".

        It gets the JSON values `args`, `seconds` of time, and `room` bytes of memory beside what the process has.
        """
        request = json.dumps({"target": target, "args": args, "room": room}).encode() + b"\n"
        with self._lock:
            answer = self._answer(request, seconds) if self._process is not None else b""
            # One that was there may have ended before this call, as it does when it is idle: only a new one tells.
            if answer == b"":
                self._end()
                self._process = self._start()
                answer = self._answer(request, seconds)
            if answer == b"done\n":
                return None
            code = self._end()
        if answer is None:
            return f"took more than {seconds:.3g} s"
        if answer == b"memory\n":
            return f"needed more than {room / 1e9:.1f} GB of memory"
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def close(self) -> None:
        """End the process; a later call starts another."""
        with self._lock:
            self._end()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | ENVIRONMENT,
            # Ctrl-C at a terminal is for the driver: this process ends with its input.
            start_new_session=True,
        )

    def _answer(self, request: bytes, seconds: float) -> bytes | None:
        """What `_line` says after the request; b"" if it could not be sent."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except OSError:
            return b""
        return _line(self._process, seconds)

    def _end(self) -> int:
        """The process's exit code, once it has ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            # A request that could not be sent to a process that has ended is still in the pipe's buffer.
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            return process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _line(process: "subprocess.Popen[bytes]", seconds: float) -> bytes | None:
    """What the process has answered, one of a few short words; b"" if it has ended, None if it takes longer than `seconds`."""
    assert process.stdout is not None
    end, got = time.monotonic() + seconds, b""
    # Not select, which takes no descriptor above 1023: a driver of many hosts has more.
    poll = select.poll()
    poll.register(process.stdout)
    while not got.endswith(b"\n") and len(got) < 100:
        if not poll.poll(1000 * max(0.0, end - time.monotonic())):
            return None
        more = os.read(process.stdout.fileno(), 100)
        if not more:
            return b""
        got += more
    return got


def serve() -> None:
    """The main function of the child: one request per line of standard input, until there are none for IDLE seconds."""
    # What the functions print must not be taken for an answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    while select.select([0], [], [], IDLE)[0] and (line := sys.stdin.buffer.readline()):
        request = json.loads(line)
        module, _, name = request["target"].partition(":")
        function = getattr(importlib.import_module(module), name)
        _limit_memory(request["room"])
        answer = b"done\n"
        try:
            function(*request["args"])
        except MemoryError:
            answer = b"memory\n"
        # Errors are the caller's to find, when it calls the same function itself.
        except Exception:
            pass
        os.write(answers, answer)


def _limit_memory(room: int) -> None:
    try:
        import resource

        # A crash is reported; a dump of the memory is of no use to anybody.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = now + room if hard == resource.RLIM_INFINITY else min(now + room, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    # No such limit on this system: the time is bounded all the same.
    except (ImportError, OSError, ValueError):
        return
