"""A character LSTM with tied embedding and softmax weights, in plain PyTorch.

Shapes: B samples, T characters, H hidden units, V symbols.
"""

from torch import Tensor, nn, zeros
from torch.nn.functional import cross_entropy, linear


class CharLSTM(nn.Module):
    """Predicts each character of a window from those before it: logits = h E^T + bias, from a zero initial state.

    It has no dropout, no buffers and no state between batches, so a sample's loss depends on that sample and the parameters
    alone. ValueError for sizes below 1.
    """

    def __init__(self, symbols: int = 97, hidden: int = 128, layers: int = 1) -> None:
        super().__init__()
        if min(symbols, hidden, layers) < 1:
            raise ValueError(f"CharLSTM needs sizes >= 1: got symbols={symbols}, hidden={hidden}, layers={layers}")
        self.embedding = nn.Embedding(symbols, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.bias = nn.Parameter(zeros(symbols))
        self._initialize()

    def _initialize(self) -> None:
        """Initialize for nearly uniform predictions, unsaturated gates, open forget gates and a norm-preserving recurrence."""
        hidden = self.lstm.hidden_size
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        for name, parameter in self.lstm.named_parameters():
            # PyTorch orders the gates input, forget, cell, output, and adds two biases, of which one is enough to open the gate.
            gates = parameter.data.chunk(4)
            # Embeddings have norm 1: the pre-activations of the first layer start with a deviation of 0.5.
            if name == "weight_ih_l0":
                nn.init.normal_(parameter, std=0.5)
            if name.startswith("weight_hh"):
                for gate in gates:
                    nn.init.orthogonal_(gate)
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            if name.startswith("bias_ih"):
                nn.init.ones_(gates[1])

    def forward(self, inputs_BT: Tensor) -> Tensor:
        """Logits (B, T, V) of the character after each input."""
        h_BTH, _ = self.lstm(self.embedding(inputs_BT))
        return linear(h_BTH, self.embedding.weight, self.bias)

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,): the mean negative log likelihood over the window, in nats per character."""
        logits_BTV, targets_BT = self(batch["inputs"]), batch["targets"]
        loss_BT = cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none").view_as(targets_BT)
        return loss_BT.mean(1)
