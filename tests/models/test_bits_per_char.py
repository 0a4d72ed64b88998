"""Bits a character: near uniform before learning, below the unigram entropy after."""

import math

import numpy as np
import pytest
import torch

from distseq.models.char_lstm import CharLSTM
from distseq.models.data.held_out import HeldOut
from distseq.models.data.text import Text, open_aws


@pytest.fixture(scope="module")
def sqs() -> Text:
    return open_aws("sqs", window=32)


def model_of(hidden: int) -> CharLSTM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CharLSTM(hidden=hidden)


def bits_per_char(model: CharLSTM, text: Text, limit: int) -> float:
    held_out = HeldOut(text, limit)
    with torch.no_grad():
        return model.per_sample_loss(held_out.batch(np.arange(len(held_out)))).mean().item() / math.log(2)


@pytest.mark.parametrize("hidden", [16, 128])
def test_an_untrained_model_needs_about_log2_of_97_bits(sqs: Text, hidden: int) -> None:
    assert bits_per_char(model_of(hidden), sqs, limit=50) == pytest.approx(math.log2(97), abs=0.25)


def test_a_few_steps_of_training_beat_the_unigram_entropy(sqs: Text) -> None:
    model, rng = model_of(32), np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(50):
        loss = model.per_sample_loss(sqs.batch(rng.integers(len(sqs), size=16))).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert bits_per_char(model, sqs, limit=100) < sqs.unigram_entropy - 0.5
