"""Creates the anonymous files that are mapped as shared memory, with their bytes really allocated.

A file that is mapped before its bytes exist ends its writer by SIGBUS when the file system or the container's memory is full; one
that is allocated first fails with an error that can be told.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from distseq.cluster.pool import PoolError
from distseq.cluster.system.memory import available_memory

MiB = 1 << 20


class SegmentFiles:
    """Files in memory, or with `folder` in that folder, such as /dev/shm or one on a disk.

    ValueError when nothing can be created there.
    """

    def __init__(self, folder: str = "") -> None:
        self.folder = folder
        try:
            os.close(self._open())
        except (OSError, AttributeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "this system has none"
            raise ValueError(
                f"cannot create a file for shared memory in {self.folder or 'memory'}: {reason}: "
                "set shared_memory in [pool] to a folder that can be written to"
            ) from None

    def create(self, size: int, *, least: int) -> int:
        """The descriptor of a new file of `size` bytes, or of `least` where there is not as much. PoolError without room."""
        try:
            descriptor = self._open()
        except OSError as error:
            raise PoolError(f"cannot create shared memory: {error.strerror}{advice(error)}") from error
        try:
            if not self.folder and least > available_memory():
                # Anonymous memory has no limit of its own: beyond what is left the system would kill processes.
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            self._allocate(descriptor, size, least)
        except OSError as error:
            os.close(descriptor)
            raise PoolError(self._refusal(least, error)) from error
        return descriptor

    def _open(self) -> int:
        if not self.folder:
            return os.memfd_create("distseq", os.MFD_CLOEXEC)
        # Without a name from the start or, where the file system has no such files, from now on: nothing is ever left behind.
        descriptor, name = tempfile.mkstemp(prefix="distseq-", dir=self.folder)
        os.unlink(name)
        return descriptor

    def _allocate(self, descriptor: int, size: int, least: int) -> None:
        if size > least:
            try:
                os.posix_fallocate(descriptor, 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EFBIG):
                    raise
                # What a failed call has allocated counts against the second one.
                os.ftruncate(descriptor, 0)
        os.posix_fallocate(descriptor, 0, least)

    def _refusal(self, least: int, error: OSError) -> str:
        need = f"{least / MiB:.2f} MiB more"
        if not self.folder:
            way = "use fewer workers or learners, or set shared_memory in [pool] to a folder on a disk"
            left = f"{available_memory() / MiB:.0f} MiB of memory are left"
            return f"shared memory is full: {need} are needed, {left} ({error.strerror}){advice(error)}: {way}"
        free = f"{shutil.disk_usage(self.folder).free / MiB:.2f} MiB are free"
        way = "set shared_memory in [pool] to a folder with more room"
        if Path(self.folder).resolve().is_relative_to("/dev/shm"):
            way += ", leave it out, or start the container with a larger --shm-size"
        return f"shared memory in {self.folder} is full: {need} are needed, {free} ({error.strerror}){advice(error)}: {way}"


def advice(error: OSError) -> str:
    """What a user can do about a limit of the system, beginning with ": "; empty for any other error."""
    if error.errno == errno.EFBIG:
        return ": allow larger files with ulimit -f"
    few = error.errno in (errno.EMFILE, errno.ENFILE)
    return ": allow more open files with ulimit -n, or use fewer hosts" if few else ""
