"""Descriptions of layers: what is written is what is built, or refused with what could have been written."""

import pytest

from distseq.kernels.layers import LAYERS, DeltaProduct, layers_of
from distseq.kernels.layers.description import options_of


@pytest.mark.parametrize("word", ["False", "false", "FALSE"])
def test_a_word_that_says_no_means_no(word: str) -> None:
    layer = layers_of(f"delta_product:gated={word}", 8)[0]
    assert isinstance(layer, DeltaProduct)
    assert layer.decay is None


def test_none_is_none() -> None:
    assert "window=None" in repr(layers_of("attention:window=none", 8)[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lstm:cell=gru", r"layer 'lstm' has no option 'cell': it takes heads \(a whole number\): got 'lstm:cell=gru'"),
        ("gla:decay=scalar", "layer 'gla' has no option 'decay': it takes heads"),
        ("delta:steps=2", r"'steps': it takes heads \(a whole number\), gated \(true or false\)"),
        ("gla:heads=2:heads=4", "option 'heads' is given twice: got 'gla:heads=2:heads=4'"),
        ("mamba:expand=2.5", "'expand' of layer 'mamba' must be a whole number: got '2.5'"),
        ("mamba:expand=2e0", "'expand' of layer 'mamba' must be a whole number: got '2e0'"),
        ("delta:gated=1", "'gated' of layer 'delta' must be true or false: got '1'"),
        ("lstm:heads=true", "'heads' of layer 'lstm' must be a whole number: got 'true'"),
        ("lstm:heads=", "'heads' of layer 'lstm' must be a whole number: got ''"),
        ("lstm:heads", "a layer's option must be NAME=VALUE: got 'heads'"),
        ("attention:window=-3", r"window must be at least 1: got -3 \(layer 'attention:window=-3'\)"),
        ("attention:window=99999999999999", "must be a whole number or none"),
        ("lstm*²", "count must be a whole number from 1 to 1000"),
        ("lstm*2*3", "count must be a whole number from 1 to 1000"),
        ("lstm*1001", "count must be a whole number from 1 to 1000"),
        ("lstm*", "count must be a whole number from 1 to 1000"),
        ("lstm,", "a layer must be one of lstm, gru, .*: got ''"),
        ("LSTM", "a layer must be one of lstm, gru, .*: got 'LSTM'"),
        (["lstm", "gru"], r"layers must be text such as .*: got \['lstm', 'gru'\]"),
        (3, "layers must be text such as .*: got 3"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layers_of(text, 8)


@pytest.mark.parametrize("name", LAYERS)
def test_every_option_of_every_layer_is_known_by_its_type(name: str) -> None:
    """A layer with an option of another type would need a way to write it."""
    assert set(options_of(LAYERS[name]).values()) <= {int, bool, str, int | None}


def test_gated_must_be_a_truth_value_in_python_too() -> None:
    with pytest.raises(ValueError, match="gated must be True or False: got 'False'"):
        DeltaProduct(8, gated="False")  # type: ignore[arg-type]
