"""The character LSTM obeys the contract that makes a coded gradient exact: its loss is a sum of independent samples."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from distseq.models.char_lstm import CharLSTM
from distseq.models.sequence import SequenceModel

Batch = dict[str, Tensor]
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9))  # layers, window


def model_of(layers: int = 1) -> CharLSTM:
    with torch.random.fork_rng():
        torch.manual_seed(layers)
        return CharLSTM(symbols=11, hidden=7, layers=layers).double()


def batch_of(samples: int, window: int, seed: int = 0) -> Batch:
    symbols = torch.from_numpy(np.random.default_rng(seed).integers(11, size=(samples, window + 1)))
    return {"inputs": symbols[:, :-1], "targets": symbols[:, 1:]}


def rows(batch: Batch, chosen: slice | Tensor) -> Batch:
    return {name: tensor[chosen] for name, tensor in batch.items()}


def gradient(model: CharLSTM | SequenceModel, batch: Batch, weights: Tensor) -> Tensor:
    """Gradient of the weighted sum of per-sample losses, as one vector."""
    grads = torch.autograd.grad(weights @ model.per_sample_loss(batch), list(model.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32))
def test_the_gradient_over_concatenated_parts_is_the_weighted_sum_of_the_gradients_of_parts(
    shape: tuple[int, int], sizes: list[int], seed: int
) -> None:
    layers, window = shape
    model, batch = model_of(layers), batch_of(sum(sizes), window, seed)
    coefficients = torch.from_numpy(np.random.default_rng(seed).normal(size=len(sizes)))
    whole = gradient(model, batch, coefficients.repeat_interleave(torch.tensor(sizes)))

    cuts = np.cumsum([0, *sizes])
    parts = [rows(batch, slice(start, stop)) for start, stop in pairwise(cuts)]
    gradients = [gradient(model, part, torch.ones(len(part["inputs"])).double()) for part in parts]
    scale = sum(abs(c) * g.norm() for c, g in zip(coefficients, gradients, strict=True))
    summed = sum(c * g for c, g in zip(coefficients, gradients, strict=True))
    assert (whole - summed).norm() <= 1e-12 * scale


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.permutations(range(6)))
def test_permuting_the_samples_permutes_their_losses(shape: tuple[int, int], order: list[int]) -> None:
    model, batch = model_of(shape[0]), batch_of(6, shape[1])
    permuted = model.per_sample_loss(rows(batch, torch.tensor(order)))
    torch.testing.assert_close(permuted, model.per_sample_loss(batch)[order], rtol=1e-12, atol=0)


def test_the_loss_of_a_sample_depends_on_no_other_sample() -> None:
    model, batch = model_of(2), batch_of(5, 4)
    alone = torch.cat([model.per_sample_loss(rows(batch, slice(i, i + 1))) for i in range(5)])
    torch.testing.assert_close(alone, model.per_sample_loss(batch), rtol=1e-12, atol=0)


def test_a_second_forward_pass_gives_the_same_bits() -> None:
    model, batch = model_of(), batch_of(5, 4)
    assert model.per_sample_loss(batch).equal(model.per_sample_loss(batch))
    assert not list(model.buffers())


def test_a_prediction_does_not_see_later_characters() -> None:
    model, batch = model_of(2), batch_of(3, 6)
    changed = batch["inputs"].clone()
    changed[:, 4:] = 10 - changed[:, 4:]
    torch.testing.assert_close(model(changed)[:, :4], model(batch["inputs"])[:, :4], rtol=1e-12, atol=0)


def test_the_loss_is_the_mean_negative_log_likelihood_of_the_targets() -> None:
    model, batch = model_of(), batch_of(3, 6)
    likely = (model(batch["inputs"]).softmax(-1) * one_hot(batch["targets"], 11)).sum(-1)
    torch.testing.assert_close(model.per_sample_loss(batch), -likely.log().mean(1), rtol=1e-12, atol=0)


def test_an_empty_part_has_no_losses_and_no_gradient() -> None:
    model, empty = model_of(), batch_of(0, 4)
    assert model.per_sample_loss(empty).shape == (0,)
    assert gradient(model, empty, torch.zeros(0).double()).count_nonzero() == 0


def test_the_softmax_is_tied_to_the_embedding_and_forget_gates_start_open() -> None:
    model = CharLSTM(symbols=97, hidden=128, layers=2)
    names = [name for name, _ in model.named_parameters() if not name.startswith("lstm.")]
    assert sorted(names) == ["bias", "embedding.weight"]
    assert model.embedding.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    for layer in ("l0", "l1"):
        bias = getattr(model.lstm, f"bias_ih_{layer}") + getattr(model.lstm, f"bias_hh_{layer}")
        assert bias.view(4, 128).mean(1).tolist() == [0, 1, 0, 0]


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CharLSTM needs sizes >= 1: got symbols=97, hidden=0, layers=1"):
        CharLSTM(hidden=0)
