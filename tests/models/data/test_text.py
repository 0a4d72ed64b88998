"""A text becomes training and held-out windows without changing, losing or leaking a character."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distseq.models.data.held_out import HeldOut
from distseq.models.data.text import ALPHABET, SYMBOLS, UNKNOWN, Text, decode, encode, open_file


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, int]:
    """A text of printable characters and a window that it is long enough for."""
    window = draw(st.integers(1, 7))
    return draw(st.text(ALPHABET, min_size=10 * window + 1, max_size=200)), window


def joined(windows: np.ndarray) -> list[str]:
    return [decode(row) for row in windows]


def test_the_alphabet_is_newline_and_printable_ascii_and_one_symbol_is_left_for_the_rest() -> None:
    assert SYMBOLS == 97
    assert sorted(ALPHABET) == ["\n", *map(chr, range(32, 127))]


@given(st.text(ALPHABET))
def test_encoding_a_known_text_and_decoding_it_changes_nothing(text: str) -> None:
    assert decode(encode(text)) == text


@given(st.text(st.characters(exclude_characters=ALPHABET)))
def test_every_other_character_becomes_one_unknown_symbol(text: str) -> None:
    assert encode(text).tolist() == [UNKNOWN] * len(text)
    assert encode(text).dtype == np.uint8


def test_a_lone_surrogate_is_an_unknown_character_too() -> None:
    assert encode("a\ud83d").tolist() == [*encode("a"), UNKNOWN]
    assert Text("\ud83d" * 11, window=1).fingerprint


@given(texts())
def test_a_training_sample_is_the_slice_of_the_text_at_its_id(case: tuple[str, int]) -> None:
    text, window = case
    data = Text(text, window)
    ids = np.arange(len(data))[::-1]
    batch = data.batch(ids)
    assert joined(batch["inputs"].numpy()) == [text[i : i + window] for i in ids]
    assert joined(batch["targets"].numpy()) == [text[i + 1 : i + 1 + window] for i in ids]


@given(texts())
def test_training_windows_use_the_first_nine_tenths_and_nothing_else(case: tuple[str, int]) -> None:
    text, window = case
    boundary = len(text) * 9 // 10
    changed = text[:boundary] + "~" * (len(text) - boundary)
    ids = np.arange(len(Text(text, window)))
    assert ids[-1] + window + 1 == boundary
    assert Text(text, window).batch(ids)["targets"].equal(Text(changed, window).batch(ids)["targets"])


def whole(held_out: HeldOut) -> dict[str, torch.Tensor]:
    return held_out.batch(np.arange(len(held_out)))


@given(texts())
def test_held_out_windows_follow_each_other_through_the_last_tenth(case: tuple[str, int]) -> None:
    text, window = case
    last = text[len(text) * 9 // 10 :]
    held_out = whole(HeldOut(Text(text, window)))
    inputs, targets = "".join(joined(held_out["inputs"].numpy())), "".join(joined(held_out["targets"].numpy()))
    assert inputs == last[: len(inputs)]
    assert targets == last[1 : 1 + len(inputs)]
    assert 0 <= len(last) - 1 - len(inputs) < window


@given(texts(), st.integers(1, 30))
def test_a_limit_keeps_evenly_spaced_windows_of_the_same_ones(case: tuple[str, int], limit: int) -> None:
    data = Text(*case)
    every, some = whole(HeldOut(data))["inputs"], whole(HeldOut(data, limit))["inputs"]
    count = len(every)
    chosen = [k * count // min(limit, count) for k in range(min(limit, count))]
    assert some.equal(every[chosen])
    assert len(set(np.diff(chosen))) <= 2


@given(texts(), st.data())
def test_the_fingerprint_tells_texts_and_windows_apart(case: tuple[str, int], data: st.DataObject) -> None:
    text, window = case
    k = data.draw(st.integers(0, len(text) - 1))
    other = text[:k] + ("a" if text[k] != "a" else "b") + text[k + 1 :]
    fingerprint = Text(text, window).fingerprint
    assert fingerprint == Text(text, window).fingerprint
    assert len(bytes.fromhex(fingerprint)) == 32
    assert fingerprint != Text(other, window).fingerprint
    if window > 1:
        assert fingerprint != Text(text, window - 1).fingerprint


def test_unigram_entropy_of_a_tiny_text_agrees_with_a_calculation_by_hand() -> None:
    # Trained on 18 characters, 15 a and 3 b, of 97 symbols: p(a) = 16 / 115, p(b) = 4 / 115; held out is "ab".
    by_hand = (np.log2(115 / 16) + np.log2(115 / 4)) / 2
    assert Text("aaaaab" * 3 + "ab", window=1).unigram_entropy == pytest.approx(by_hand, rel=1e-14)


def test_a_batch_of_no_samples_keeps_its_window() -> None:
    batch = Text("a" * 100, window=5).batch(np.array([], np.int64))
    assert batch["inputs"].shape == batch["targets"].shape == (0, 5)


@pytest.mark.parametrize("index", [-1, 85])
def test_a_sample_id_outside_the_training_part_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=rf"sample ids must be in 0 \.\. 84: got \[{index}\]"):
        Text("a" * 100, window=5).batch(np.array([3, index]))


def test_a_text_that_is_too_short_is_refused_with_what_it_needs() -> None:
    with pytest.raises(ValueError, match="window=5 needs at least 51 characters: got 50"):
        Text("a" * 50, window=5)
    assert len(HeldOut(Text("a" * 51, window=5))) == 1


@pytest.mark.parametrize("window", [0, -3, 2.5, "8"])
def test_a_window_that_is_no_positive_whole_number_is_refused(window: Any) -> None:
    with pytest.raises(ValueError, match=f"got window={window!r}$"):
        Text("a" * 50, window)


def test_a_limit_of_no_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="limit=0"):
        HeldOut(Text("a" * 50, window=1), limit=0)


def test_held_out_samples_are_read_by_id_and_have_a_fingerprint_of_their_own() -> None:
    text = Text("".join(map(chr, range(40, 90))) * 10, window=4)
    held_out = HeldOut(text, 5)
    assert held_out.batch(np.array([3, 1]))["targets"].equal(whole(held_out)["targets"][[3, 1]])
    with pytest.raises(ValueError, match=r"sample ids must be in 0 \.\. 4: got \[5\]"):
        held_out.batch(np.array([5]))
    assert len({held_out.fingerprint, HeldOut(text, 4).fingerprint, text.fingerprint}) == 3
    assert HeldOut(text, 5).fingerprint == held_out.fingerprint


def test_a_file_holds_the_text_that_was_written_to_it(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("größer\n" * 20, encoding="utf-8")
    assert open_file(str(path), window=3).fingerprint == Text("größer\n" * 20, window=3).fingerprint


def test_a_file_that_is_missing_or_not_utf8_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^can't read text file '.*absent\.txt': No such file or directory$"):
        open_file(str(tmp_path / "absent.txt"))
    (tmp_path / "latin.txt").write_bytes(b"gr\xf6\xdfer")
    with pytest.raises(ValueError, match=r"^text file '.*latin\.txt' is not UTF-8: .* at byte 2$"):
        open_file(str(tmp_path / "latin.txt"))
