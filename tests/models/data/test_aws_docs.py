"""The documentation inside botocore reads as plain English."""

import subprocess
import sys
from pathlib import Path

import pytest

import distseq
from distseq.models.data.aws_docs import aws_text, plain
from distseq.models.data.text import UNKNOWN, encode


@pytest.fixture(scope="module")
def s3() -> str:
    return aws_text("s3")


def test_a_service_has_plenty_of_text(s3: str) -> None:
    assert len(s3) >= 100_000
    assert len(aws_text("sqs")) >= 50_000


def test_no_line_of_a_service_comes_twice(s3: str) -> None:
    lines = s3.split("\n")
    assert len(lines) == len(set(lines))
    assert all(line == " ".join(line.split()) != "" for line in lines)


def test_tags_and_entities_are_gone(s3: str) -> None:
    for markup in ("<p>", "</p>", "<code>", "<a href", "&lt;", "&amp;"):
        assert markup not in s3


def test_nearly_every_character_is_in_the_alphabet(s3: str) -> None:
    assert (encode(s3) == UNKNOWN).mean() < 0.001


def test_the_same_text_comes_back_every_time(s3: str) -> None:
    assert aws_text("s3") == s3


def test_inline_tags_vanish_and_block_tags_separate_words() -> None:
    assert (
        plain("<p>Call <code>Get</code>s,\n  <i>now</i>.</p><p>If a &lt; b&nbsp;then</p>")
        == "Call Gets, now. If a < b then"
    )


def test_escaped_markup_is_text_and_stays() -> None:
    assert plain("<p><code>&lt;Grantee&gt;</code></p>") == "<Grantee>"


def test_an_unknown_service_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"^no service 's4' in botocore; nearest: s3, [a-z0-9-]+, [a-z0-9-]+$"):
        aws_text("s4")


@pytest.mark.parametrize("service", ["", "*", "..", "s3/../sqs"])
def test_a_path_or_pattern_is_not_a_service(service: str) -> None:
    with pytest.raises(ValueError, match="no service"):
        aws_text(service)


def test_botocore_itself_is_not_imported() -> None:
    code = "import sys; from distseq.models.data.aws_docs import aws_text; aws_text('sqs'); sys.exit('botocore' in sys.modules)"
    root = Path(distseq.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
