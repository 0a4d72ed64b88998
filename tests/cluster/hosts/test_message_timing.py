"""The master's clock over messages."""

import tracemalloc

from distseq.cluster.hosts.message_timing import REMEMBERED, MessageTimer


def test_what_was_not_computing_was_waiting() -> None:
    watch = MessageTimer()
    watch.sent(0, 0, "a", 1.0)
    assert watch.answered(0, 0, "a", 0.5, 3.0) == (1.5, False)


def test_a_message_that_queues_begins_when_the_one_before_is_answered() -> None:
    watch = MessageTimer()
    watch.sent(0, 0, "a", 0.0)
    watch.sent(0, 1, "a", 1.0)
    watch.answered(0, 0, "a", 1.0, 5.0)
    assert watch.answered(0, 1, "a", 1.0, 7.0) == (1.0, True)


def test_the_rows_of_a_message_add_up() -> None:
    watch = MessageTimer()
    watch.sent(0, 0, "a", 0.0)
    assert watch.answered(0, 0, "a", 1.0, 1.5) == (0.5, False)
    assert watch.answered(0, 0, "a", 1.0, 3.0) == (1.0, False)


def test_computing_for_another_worker_of_the_host_is_not_waiting() -> None:
    watch = MessageTimer()
    for worker, host in ((0, "a"), (1, "a"), (2, "b")):
        watch.sent(worker, 0, host, 0.0)
    assert watch.answered(0, 0, "a", 2.0, 2.0) == (0.0, False)
    assert watch.answered(1, 0, "a", 2.0, 4.5) == (0.5, False)
    assert watch.answered(2, 0, "b", 2.0, 4.5) == (2.5, False)


def test_messages_that_a_worker_has_never_answered_are_forgotten() -> None:
    watch = MessageTimer()
    for k in range(4):
        watch.sent(0, k, "a", float(k))
    watch.answered(0, 2, "a", 0.0, 9.0)
    # Nothing is known of how long it has waited.
    assert watch.answered(0, 1, "a", 0.0, 9.0) == (0.0, False)
    assert watch.answered(0, 3, "a", 0.0, 9.5) == (0.5, True)


def test_of_a_worker_that_is_always_too_late_no_more_than_the_latest_messages_are_remembered() -> None:
    watch = MessageTimer()
    for k in range(REMEMBERED + 10):
        watch.sent(0, k, "a", float(k))
    assert watch.answered(0, 9, "a", 0.0, 1e4) == (0.0, False)
    assert watch.answered(0, 20, "a", 0.0, 2e4) == (1e4, True)
    tracemalloc.start()
    for k in range(10_000):
        watch.sent(1, k, "a", float(k))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 300 * REMEMBERED
