"""Every layer, in a model, obeys the contract that makes a coded gradient exact: its loss is a sum of independent samples."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from distseq.kernels.layers import LAYERS, layers_of
from distseq.models.char_lstm import CharLSTM
from distseq.models.sequence import SequenceModel
from tests.models.test_char_lstm import batch_of, gradient, rows

STACKS = [
    *LAYERS,
    "lstm:heads=2",
    "gru:heads=4",
    "attention:window=3",
    "linear_attention:decay=none",
    "lstm*2,ssm:states=3",
]
stacks = pytest.mark.parametrize("layers", STACKS)


def model_of(layers: str, **options: object) -> SequenceModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return SequenceModel(symbols=11, width=8, layers=layers, **{"residual": True, **options}).double()


@stacks
@settings(deadline=None, max_examples=5)
@given(window=st.integers(1, 9), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_the_gradient_over_concatenated_parts_is_the_weighted_sum_of_the_gradients_of_parts(
    layers: str, window: int, sizes: list[int], seed: int
) -> None:
    model, batch = model_of(layers), batch_of(sum(sizes), window, seed)
    coefficients = torch.from_numpy(np.random.default_rng(seed).normal(size=len(sizes)))
    whole = gradient(model, batch, coefficients.repeat_interleave(torch.tensor(sizes)))

    cuts = np.cumsum([0, *sizes])
    parts = [rows(batch, slice(start, stop)) for start, stop in pairwise(cuts)]
    gradients = [gradient(model, part, torch.ones(len(part["inputs"])).double()) for part in parts]
    scale = sum(abs(c) * g.norm() for c, g in zip(coefficients, gradients, strict=True))
    summed = sum(c * g for c, g in zip(coefficients, gradients, strict=True))
    assert (whole - summed).norm() <= 1e-12 * scale


@stacks
def test_permuting_the_samples_permutes_their_losses(layers: str) -> None:
    model, batch, order = model_of(layers), batch_of(6, 9), torch.tensor([3, 5, 0, 1, 4, 2])
    permuted = model.per_sample_loss(rows(batch, order))
    torch.testing.assert_close(permuted, model.per_sample_loss(batch)[order], rtol=1e-12, atol=0)


@stacks
def test_the_loss_of_a_sample_depends_on_no_other_sample(layers: str) -> None:
    model, batch = model_of(layers), batch_of(5, 7)
    alone = torch.cat([model.per_sample_loss(rows(batch, slice(i, i + 1))) for i in range(5)])
    torch.testing.assert_close(alone, model.per_sample_loss(batch), rtol=1e-12, atol=0)


@stacks
def test_a_second_forward_pass_gives_the_same_bits(layers: str) -> None:
    model, batch = model_of(layers).float(), batch_of(5, 40)
    assert model.per_sample_loss(batch).equal(model.per_sample_loss(batch))
    assert not list(model.buffers())


@stacks
def test_every_parameter_learns(layers: str) -> None:
    model, batch = model_of(layers), batch_of(5, 7)
    grads = torch.autograd.grad(model.per_sample_loss(batch).sum(), list(model.parameters()))
    still = [name for (name, _), grad in zip(model.named_parameters(), grads, strict=True) if not grad.any()]
    assert still == []


@stacks
def test_a_prediction_does_not_see_later_symbols(layers: str) -> None:
    model, batch = model_of(layers), batch_of(3, 9)
    changed = batch["inputs"].clone()
    changed[:, 4:] = 10 - changed[:, 4:]
    y, other = model(batch["inputs"]), model(changed)
    torch.testing.assert_close(other[:, :4], y[:, :4], rtol=1e-9, atol=1e-12)
    assert (other[:, 5:] - y[:, 5:]).abs().max() > 1e-3


@stacks
def test_single_steps_from_the_state_are_the_sequence(layers: str) -> None:
    model, inputs = model_of(layers), batch_of(3, 9)["inputs"]
    first, state = model(inputs[:, :4], carry=True)
    outputs = [first]
    for t in range(4, 9):
        y, state = model(inputs[:, t : t + 1], state, carry=True)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), model(inputs), rtol=1e-9, atol=1e-12)


def test_the_loss_is_the_mean_negative_log_likelihood_of_the_targets_that_count() -> None:
    model, batch = model_of("lstm"), batch_of(3, 6)
    likely = (model(batch["inputs"]).softmax(-1) * one_hot(batch["targets"], 11)).sum(-1)
    torch.testing.assert_close(model.per_sample_loss(batch), -likely.log().mean(1), rtol=1e-12, atol=0)
    batch["targets"] = batch["targets"].clone()
    batch["targets"][:, :4] = -100
    torch.testing.assert_close(model.per_sample_loss(batch), -likely.log()[:, 4:].mean(1), rtol=1e-12, atol=0)
    batch["targets"][1] = -100
    assert model.per_sample_loss(batch)[1] == 0


@pytest.mark.parametrize(
    ("head", "options", "shape"),
    [
        ("tied", {}, (3, 6, 11)),
        ("symbols", {}, (3, 6, 11)),
        ("symbols", {"outputs": 5, "features": 2}, (3, 6, 5)),
        ("class", {"outputs": 4}, (3, 4)),
        ("values", {"outputs": 2, "features": 2}, (3, 6, 2)),
    ],
)
def test_a_head_gives_what_its_targets_need(head: str, options: dict[str, int], shape: tuple[int, ...]) -> None:
    model = model_of("gru", head=head, **options)
    inputs = torch.ones(3, 6, 2).double() if options.get("features") else batch_of(3, 6)["inputs"]
    y = model(inputs)
    assert tuple(y.shape) == shape
    targets = torch.zeros(shape).double() if head == "values" else torch.zeros(shape[:-1], dtype=torch.int64)
    expected = y.square().flatten(1).mean(1) if head == "values" else -y.log_softmax(-1)[..., 0].reshape(3, -1).mean(1)
    torch.testing.assert_close(model.per_sample_loss({"inputs": inputs, "targets": targets}), expected)


def test_the_main_jobs_model_is_the_character_lstm_of_plain_torch() -> None:
    """Its embeddings are scaled, CharLSTM's are not, and it has one bias where nn.LSTM adds two: in values and gradients."""
    ours = SequenceModel(symbols=11, width=8, layers="lstm*2").double()
    plain, batch = CharLSTM(symbols=11, hidden=8, layers=2).double(), batch_of(4, 9)
    with torch.no_grad():
        plain.embedding.weight.copy_(ours.entry.weight)
        plain.bias.copy_(ours.bias.normal_())
        for at, layer in enumerate(ours.layers):
            getattr(plain.lstm, f"weight_ih_l{at}").copy_(layer.weight.flatten(0, 2) * (ours.scale if at == 0 else 1))
            getattr(plain.lstm, f"weight_hh_l{at}").copy_(layer.recurrent[0].mT.flatten(0, 1))
            getattr(plain.lstm, f"bias_ih_l{at}").copy_(layer.bias.flatten())
            getattr(plain.lstm, f"bias_hh_l{at}").zero_()
    found, expected = ours.per_sample_loss(batch), plain.per_sample_loss(batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for own, other in ((ours.entry.weight, plain.embedding.weight), (ours.layers[1].bias, plain.lstm.bias_hh_l1)):
        grads = [torch.autograd.grad(y.sum(), p, retain_graph=True)[0] for y, p in ((found, own), (expected, other))]
        torch.testing.assert_close(grads[0].flatten(), grads[1].flatten(), rtol=1e-9, atol=1e-12)


def test_the_softmax_is_tied_to_the_embedding_and_forget_gates_start_open() -> None:
    model = SequenceModel(symbols=97, width=128, layers="lstm*2")
    assert sorted(n for n, _ in model.named_parameters() if not n.startswith("layers.")) == ["bias", "entry.weight"]
    assert model.entry.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    for layer in model.layers:
        assert layer.bias.mean((0, 2)).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"width": 8.0}, "SequenceModel: width must be a whole number: got 8.0"),
        ({"residual": "false"}, "SequenceModel: residual must be true or false: got 'false'"),
        ({"width": 0}, "SequenceModel needs sizes >= 1: got symbols=97, width=0, features=0, outputs=0"),
        ({"head": "x"}, "SequenceModel: head must be one of tied, symbols, class, values: got 'x'"),
        ({"features": 3}, "SequenceModel: a tied head needs symbols: got features=3, outputs=0"),
        ({"layers": "lstm,gur"}, "a layer must be one of lstm, gru, .*: got 'gur'"),
        ({"layers": "lstm*0"}, r"a layer's count must be a whole number from 1 to 1000: got 'lstm\*0'"),
        ({"layers": "lstm:heads"}, "a layer's option must be NAME=VALUE: got 'heads' in 'lstm:heads'"),
        (
            {"layers": "lstm:head=2"},
            r"layer 'lstm' has no option 'head': it takes heads \(a whole number\): got 'lstm:head=2'",
        ),
        ({"layers": "lstm:heads=3"}, "LSTM: the number of heads must divide the width: got width=128, heads=3"),
        ({"layers": "ssm:states=0"}, "SSM: kind must be s4d or s5, with states >= 1: got 's4d', states=0"),
        ({"layers": "delta_product:steps=0"}, "DeltaProduct needs steps >= 1: got 0"),
        ({"layers": "linear_attention:decay=x"}, "LinearAttention: decay must be one of none, scalar, vector: got 'x'"),
        ({"layers": "attention:heads=128"}, "Attention needs an even head size: got 1"),
    ],
)
def test_what_does_not_fit_is_one_line(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SequenceModel(**options)  # type: ignore[arg-type]


def test_a_layer_names_the_shape_it_wants() -> None:
    with pytest.raises(ValueError, match=r"LSTM: x must be \(B, T, 8\): got shape \(2, 3, 7\)"):
        layers_of("lstm", 8)[0](torch.zeros(2, 3, 7))
