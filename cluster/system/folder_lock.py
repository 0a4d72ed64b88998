"""A lock on a folder, held by a process for as long as it lives."""

import contextlib
import fcntl
import os
import socket
from pathlib import Path

# The file that is locked. It is removed with the lock, so that one that is there and free was left by a killed process.
NAME = ".distseq.lock"


class HeldError(OSError):
    """Another process holds the lock; the message says which."""


class FolderLock:
    """The lock on a folder. HeldError when somebody holds it, another OSError when its file cannot be written.

    `missing`: why the file system has no locks; None where it has them.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self.missing: str | None = None
        self._handle = self._opened()

    def _opened(self) -> int:
        """The file, open and locked."""
        while True:
            # Not inherited by programs that this process starts: a host that outlives it must not hold its lock.
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._lock(handle)
                # Its last holder may have removed the file after it was opened here: then the lock is on nothing.
                if self._is_at_its_place(handle):
                    self._sign(handle)
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _sign(self, handle: int) -> None:
        # For others to read; a full disk has room for a lock all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def _lock(self, handle: int) -> None:
        try:
            # flock, since a POSIX lock is lost as soon as this process closes any handle of the file, and does not keep two
            # threads apart. The kernel frees it with the process, however that ends.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeldError(f"it is in use by {self._holder()}") from None
        # Network file systems without a lock server, and some in user space: the caller says so.
        except OSError as error:
            self.missing = error.strerror

    def _holder(self) -> str:
        try:
            # Empty for a moment, between the lock and the line.
            return self._path.read_text(errors="replace")[:200].strip() or "another process"
        except OSError:
            return "another process"

    def _is_at_its_place(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Removes the file and frees the lock; may be called twice."""
        if self._handle < 0:
            return
        handle, self._handle = self._handle, -1
        try:
            # While the lock is held: otherwise the file could be another process's by now.
            self._path.unlink(missing_ok=True)
        # A folder that cannot be written any more keeps the file, which holds nobody up.
        except OSError:
            pass
        finally:
            os.close(handle)
