"""Pickled messages, and open descriptors with them, over a Unix socket between driver and host."""

import os
import pickle
import socket
import struct
import threading
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

from distseq.cluster.pool import PoolError

HEADER = struct.Struct("!QII")  # bytes of the pickle, number of descriptors, crc32 of the pickle
SEAL = struct.Struct("!I")  # crc32 of the header
HEAD = HEADER.size + SEAL.size
AT_ONCE = 1 << 16  # bytes read by one call
# Most descriptors in one message; Linux passes 253. Segments of an arena grow by half, so that no machine has memory for more.
MOST = 250
INT = array("i").itemsize
ROOM = socket.CMSG_LEN(MOST * INT)


class DamagedError(Exception):
    """What has come is no message that the other process sent."""


def frame(message: object, descriptors: int = 0) -> bytes:
    """A message as it travels."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    header = HEADER.pack(len(data), descriptors, zlib.crc32(data))
    return header + SEAL.pack(zlib.crc32(header)) + data


class Channel:
    """One end. `send` from any thread, `receive` from one thread at a time.

    EOFError from both once the other process is gone.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket, self._sending = end, threading.Lock()
        self._bytes = bytearray()
        self._descriptors: list[int] = []

    def send(self, message: object, descriptors: Sequence[int] = ()) -> None:
        """Blocks while the other end does not read."""
        framed = memoryview(frame(message, len(descriptors)))
        try:
            with self._sending:
                # Descriptors go with the first byte; `send_fds` may send only a part of the rest.
                sent = socket.send_fds(self.socket, [framed], list(descriptors)) if descriptors else 0
                self.socket.sendall(framed[sent:])
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def receive(self, *, block: bool) -> list[tuple[Any, list[int]]]:
        """The messages that are complete by now, each with its descriptors; without `block` perhaps none.

        Half a message is kept until the rest comes: a host that is stopped in the middle of one must not stop the driver.
        PoolError when this process may not open the descriptors that came along, DamagedError for anything that was not sent so.
        """
        found: list[tuple[Any, list[int]]] = []
        while not found:
            try:
                # Not socket.recv_fds, which does not pass the flags on before Python 3.12.
                data, ancillary, flags, _ = self.socket.recvmsg(AT_ONCE, ROOM, 0 if block else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except ConnectionResetError:
                raise EOFError from None
            for _, _, packed in ancillary:
                # All that came whole, also where some were cut off, since they are open now.
                self._descriptors += array("i", packed[: len(packed) // INT * INT])
            if flags & socket.MSG_CTRUNC:
                raise PoolError("too many open files: allow more with ulimit -n, or use fewer hosts")
            if not data:
                raise EOFError
            self._bytes += data
            found = self._complete()
            if not block:
                return found
        return found

    def _complete(self) -> list[tuple[Any, list[int]]]:
        found, begin = [], 0
        while len(self._bytes) >= begin + HEAD:
            size, count, crc = HEADER.unpack_from(self._bytes, begin)
            # A view, released before the buffer shrinks.
            with memoryview(self._bytes) as view:
                # Before the size is believed: waiting for so many bytes could last for ever.
                if SEAL.unpack_from(view, begin + HEADER.size) != (zlib.crc32(view[begin : begin + HEADER.size]),):
                    raise DamagedError("the header of a message does not match its crc32")
                end = begin + HEAD + size
                if len(self._bytes) < end:
                    break
                # Unpickling what is damaged may run any code and take any memory.
                if zlib.crc32(view[begin + HEAD : end]) != crc or count > len(self._descriptors):
                    raise DamagedError("a message does not match its crc32")
                message = pickle.loads(view[begin + HEAD : end])
            found.append((message, self._descriptors[:count]))
            del self._descriptors[:count]
            begin = end
        del self._bytes[:begin]
        return found

    def close(self) -> None:
        """May be called twice."""
        self.socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
