"""Messages and descriptors between driver and host."""

import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from distseq.cluster.local.channel import Channel, DamagedError, frame
from distseq.cluster.pool import PoolError


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield Channel(ours), theirs
    ours.close()
    theirs.close()


def test_messages_come_whole_and_in_order_however_they_are_cut(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    text = b"".join(frame(message) for message in ("one", {"two": [2] * 100}, None))
    found = []
    for k in range(len(text)):
        other.sendall(text[k : k + 1])
        found += channel.receive(block=False)
    assert found == [("one", []), ({"two": [2] * 100}, []), (None, [])]


def test_half_a_message_blocks_nobody(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    assert channel.receive(block=False) == []
    other.sendall(frame("whole") + frame("half")[:-1])
    assert channel.receive(block=False) == [("whole", [])]
    assert channel.receive(block=False) == []


def test_descriptors_come_with_their_own_message(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    sender = Channel(other)
    files = [os.memfd_create(f"file {k}") for k in range(3)]
    for k, file in enumerate(files):
        os.write(file, b"%d" % k)
    sender.send("none")
    sender.send("two", files[:2])
    sender.send("one", files[2:])
    received = {}
    while len(received) < 3:
        for message, descriptors in channel.receive(block=True):
            received[message] = [os.pread(descriptor, 9, 0) for descriptor in descriptors]
            for descriptor in descriptors:
                os.close(descriptor)
    assert received == {"none": [], "two": [b"0", b"1"], "one": [b"2"]}
    for file in files:
        os.close(file)


def test_a_large_message_with_descriptors_arrives(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    file, large = os.memfd_create("file"), b"x" * 3_000_000
    thread = threading.Thread(target=Channel(other).send, args=(large, [file]))
    thread.start()
    [(message, [descriptor])] = channel.receive(block=True)
    thread.join()
    assert message == large
    os.close(descriptor)
    os.close(file)


def test_descriptors_that_may_not_be_opened_are_no_silence(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    file, before = os.memfd_create("file"), resource.getrlimit(resource.RLIMIT_NOFILE)
    Channel(other).send("message", [file])
    # As many as are open now: the lowest free one is what the limit counts from.
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(file), before[1]))
    try:
        with pytest.raises(PoolError, match="too many open files: allow more with ulimit -n, or use fewer hosts"):
            channel.receive(block=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("block", [True, False])
def test_the_end_of_the_other_process_is_the_end(ends: tuple[Channel, socket.socket], block: bool) -> None:
    channel, other = ends
    other.close()
    with pytest.raises(EOFError):
        channel.receive(block=block)
    with pytest.raises(EOFError):
        channel.send("message")


def test_an_end_with_unread_messages_is_one_too(ends: tuple[Channel, socket.socket]) -> None:
    """The system then answers with ECONNRESET."""
    channel, other = ends
    channel.send("never read")
    other.close()
    with pytest.raises(EOFError):
        channel.receive(block=True)


def test_a_damaged_message_is_refused_before_it_is_unpickled() -> None:
    whole = frame(["a report"] * 10)
    for place in range(len(whole)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(DamagedError, match=r"does not match its crc32$"):
                Channel(ours).receive(block=False)


def test_descriptors_that_did_not_come_are_damage(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.sendall(frame("message", 1))
    with pytest.raises(DamagedError):
        channel.receive(block=True)
