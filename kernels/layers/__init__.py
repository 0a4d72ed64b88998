"""Sequence layers (a projection, a primitive, an output), by their papers' names and by short names.

>>> import torch
>>> from distseq.kernels.layers import Mamba
>>> layer = Mamba(64)
>>> y, _ = layer(torch.randn(2, 10, 64))  # (B, T, width)
>>> y.shape
torch.Size([2, 10, 64])
"""

from functools import partial
from typing import Any

from distseq.kernels.layers.attention import Aaren, Attention
from distseq.kernels.layers.description import parsed
from distseq.kernels.layers.layer import Layer
from distseq.kernels.layers.matrix import MLSTM, DeltaProduct, LightNet, LinearAttention
from distseq.kernels.layers.papers import GLA, GRU, LSTM, S4D, S5, SLSTM, DeltaNet, Elman, GatedDeltaNet, Mamba
from distseq.kernels.layers.rnn import RNN
from distseq.kernels.layers.ssm import SSM, SelectiveSSM

LAYERS: dict[str, Any] = {  # name -> (width, **options) -> Layer
    "lstm": LSTM,
    "gru": GRU,
    "elman": Elman,
    "slstm": SLSTM,
    "ssm": SSM,
    "s5": S5,
    "mamba": Mamba,
    "linear_attention": LinearAttention,
    "gla": GLA,
    "mlstm": MLSTM,
    "delta": partial(DeltaProduct, steps=1),
    "delta_product": DeltaProduct,
    "aaren": Aaren,
    "lightnet": LightNet,
    "attention": Attention,
}


def layers_of(text: str, width: int) -> list[Layer]:
    """The layers, all of one width, of a description such as "lstm*2" or "ssm:states=16*3,attention:window=64".

    An item is NAME[:OPTION=VALUE]...[*COUNT], with a name of LAYERS and the options of its class: whole numbers, words, true or
    false, none. ValueError, naming the item, if one is unknown, given twice, or of another type.

    >>> [type(layer).__name__ for layer in layers_of("ssm:states=16*2,attention:window=64", width=32)]
    ['SSM', 'SSM', 'Attention']
    """
    if not isinstance(text, str):
        raise ValueError(f"layers must be text such as 'lstm*2' or 'ssm,attention:window=64': got {text!r}")
    made: list[Layer] = []
    for item in map(str.strip, text.split(",")):
        name, options, count = parsed(item, LAYERS)
        try:
            made += [LAYERS[name](width, **options) for _ in range(count)]
        except ValueError as error:
            raise ValueError(f"{error} (layer {item!r})") from None
    return made


__all__ = [
    "GLA",
    "GRU",
    "LAYERS",
    "LSTM",
    "MLSTM",
    "RNN",
    "S4D",
    "S5",
    "SLSTM",
    "SSM",
    "Aaren",
    "Attention",
    "DeltaNet",
    "DeltaProduct",
    "Elman",
    "GatedDeltaNet",
    "Layer",
    "LightNet",
    "LinearAttention",
    "Mamba",
    "SelectiveSSM",
    "layers_of",
]
