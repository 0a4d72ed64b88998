"""Layers by the names of their papers, as configurations of the other layers in this folder.

Each says where it differs from the paper. All map (B, T, width) to (B, T, width) and can continue from a state
(distseq.kernels.layers.layer.Layer.forward). ValueError unless `heads` divides `width`.
"""

from distseq.kernels.layers.matrix import DeltaProduct, LinearAttention
from distseq.kernels.layers.rnn import RNN
from distseq.kernels.layers.ssm import SSM, SelectiveSSM


class LSTM(RNN):
    """LSTM with forget gates (Hochreiter and Schmidhuber 1997; Gers et al. 2000), in `heads` independent blocks.

    With one head it is torch.nn.LSTM of one layer with one bias per gate.

    >>> import torch
    >>> y, (h, c) = LSTM(8, heads=2)(torch.randn(3, 5, 8), carry=True)
    >>> y.shape, h.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 4]))
    """

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__(width, heads, cell="lstm")


class GRU(RNN):
    """GRU in the form of torch.nn.GRU (Cho et al. 2014; Chung et al. 2014), in `heads` independent blocks.

    The reset gate multiplies the recurrent product, not the state before it as in Cho et al.

    >>> import torch
    >>> GRU(8)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__(width, heads, cell="gru")


class Elman(RNN):
    """h_t = tanh(W x_t + b + R h_{t-1}) (Elman 1990), in `heads` independent blocks.

    >>> import torch
    >>> Elman(8)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__(width, heads, cell="elman")


class SLSTM(RNN):
    """The sLSTM of xLSTM (Beck et al. 2024, eq. 8 to 17): exponential input gate, sigmoid forget gate, memory mixing in heads.

    Only the recurrence: the convolution, group norm and feed-forward part of the paper's block are left to the model around it.

    >>> import torch
    >>> SLSTM(8, heads=2)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__(width, heads, cell="slstm")


class S4D(SSM):
    """S4D-Lin (Gu et al. 2022) with `states` complex states per channel, zero-order hold, one direction.

    The paper's block gates its output (GLU) and drops out; here gelu and a projection follow.

    >>> import torch
    >>> S4D(8, states=4)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, states: int = 32) -> None:
        super().__init__(width, states, kind="s4d")


class S5(SSM):
    """S5 (Smith et al. 2023): `states` complex states that all channels share, computed as a scan.

    It starts from the frequencies of S4D-Lin, not from the eigenvalues of HiPPO, and gelu and a projection follow it in place of
    the paper's gate.

    >>> import torch
    >>> S5(8, states=4)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, states: int = 32) -> None:
        super().__init__(width, states, kind="s5")


class Mamba(SelectiveSSM):
    """The block of Mamba (Gu and Dao 2023): selective state spaces between a short convolution and a gate.

    >>> import torch
    >>> Mamba(8, states=4)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """


class GLA(LinearAttention):
    """Gated linear attention (Yang et al. 2023): a decay of its own for each key, sigmoid^(1/16) of a projection of the input.

    Unlike in the paper, there is a short convolution, the projection for the decay has full rank (there a low one), and keys are
    as wide as values (there half as wide).

    >>> import torch
    >>> GLA(8, heads=2)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__(width, heads, decay="vector")


class DeltaNet(DeltaProduct):
    """DeltaNet (Yang et al. 2024): one delta-rule update per step, without decay.

    Write strengths beta lie in (0, 2) instead of (0, 1), so that eigenvalues may be negative (Grazzi et al. 2024), and the output
    is gated.

    >>> import torch
    >>> DeltaNet(8, heads=2)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__(width, heads, steps=1, gated=False)


class GatedDeltaNet(DeltaProduct):
    """Gated DeltaNet (Yang et al. 2025): DeltaNet whose state decays by one factor per head and step.

    The decay is a sigmoid of a projection of the input; the paper takes it from a softplus, as Mamba 2 does.

    >>> import torch
    >>> GatedDeltaNet(8, heads=2)(torch.randn(3, 5, 8))[0].shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__(width, heads, steps=1)
