"""Checks are run one by one; none can stop the others."""

from collections.abc import Iterator

from distseq.cli.doctor.findings import Finding, Subject, UnknownError, examine, ok


def raises(subject: Subject) -> list[Finding]:
    raise OSError("disk\n  gone")


def mistake(subject: Subject) -> list[Finding]:
    return subject.once("fact", fails)


def fails() -> list[Finding]:
    raise ValueError("one line")


def half(subject: Subject) -> Iterator[Finding]:
    yield Finding("half", "ok", "first")
    raise UnknownError("the rest")


def test_a_check_that_raises_has_found_an_error() -> None:
    found = list(examine([("a", raises), ("b", lambda subject: ok("b", "fine"))], Subject()))
    assert found == [("a", "error", "OSError: disk gone"), ("b", "ok", "fine")]


def test_a_fact_that_cannot_be_had_is_reported_once() -> None:
    assert list(examine([("a", mistake), ("b", mistake), ("c", half)], Subject())) == [
        ("a", "error", "one line"),
        ("half", "ok", "first"),
    ]


def test_a_fact_is_made_once() -> None:
    subject, made = Subject(), list[int]()
    for _ in range(2):
        assert subject.once("n", lambda: made.append(1) or len(made)) == 1
