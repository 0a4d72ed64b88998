"""A writer that works in the background."""

from distseq.cluster.system.background_writer import Writer


def test_a_writer_works_in_order_and_returns_each_error_once() -> None:
    writer, done = Writer(), list[int]()

    def fail() -> None:
        raise OSError("full")

    for k in range(5):
        assert writer.submit(lambda k=k: done.append(k)) == []  # type: ignore[misc]
    writer.submit(fail)
    assert [str(error) for error in writer.flush()] == ["full"]
    assert writer.flush() == []
    assert done == list(range(5))
    writer.close()
    assert writer.close() == []
