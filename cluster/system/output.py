"""Output streams whose reader has gone: what is left for them is dropped, and is no error when the process exits."""

import contextlib
import errno
import os
from typing import Any

# Errors of a pipe whose reader has ended, and of a terminal that was closed.
GONE = {errno.EPIPE, errno.EIO}


def discard(file: Any) -> None:
    """Directs a file to the null device, with what is still in its buffer."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, file.fileno())
        os.close(null)


def flush_or_discard(file: Any) -> None:
    """Flushes a standard stream, which may be None or closed; what cannot be written is dropped."""
    try:
        if file is not None:
            file.flush()
    except ValueError:
        pass
    # A full disk, too: Python would say so at exit, in several lines, and with an exit code of its own.
    except OSError:
        discard(file)
