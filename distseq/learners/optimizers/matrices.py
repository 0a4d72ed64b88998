"""Which parameters of a model are matrices, and where in a tensor they lie: a table from modules to shapes."""

from torch import nn
from torch.nn.modules.conv import _ConvNd

from distseq.kernels.layers import RNN
from distseq.kernels.layers.layer import Layer

# Rows and columns of the matrices that a tensor holds one after the other: it is `tensor.view(-1, rows, columns)`.
Shape = tuple[int, int]


def matrices(model: nn.Module, *, by_gate: bool = True) -> dict[str, Shape]:
    """Name -> shape of its matrices, for every parameter that multiplies as a matrix of more than one row.

    A parameter of two dimensions is one matrix, one of more is a stack of the matrices of its last two. By module:
      nn.Embedding, nn.EmbeddingBag   tables are no matrices, wherever else they are used (tied heads)
      convolutions                    one matrix (output channels, all the rest)
      nn.GRU, nn.LSTM, their cells    with `by_gate` a matrix for each gate, else the gates' matrices as one
      RNN of distseq.kernels.layers   the same, for each head
      its other layers                only the projections in them: taps, decays and queries are no matrices

    >>> matrices(nn.GRU(3, 4))
    {'weight_ih_l0': (4, 3), 'weight_hh_l0': (4, 4)}
    """
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters(recurse=False)
    }
    shapes: dict[int, Shape] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            shape = _shape(module, name, parameter, by_gate)
            if shape is not None and shape[0] > 1 and id(parameter) not in tables:
                # A tensor of two modules is what the first takes it for.
                shapes.setdefault(id(parameter), shape)
    return {name: shapes[id(p)] for name, p in model.named_parameters() if id(p) in shapes}


def _shape(module: nn.Module, name: str, parameter: nn.Parameter, by_gate: bool) -> Shape | None:
    if parameter.ndim < 2 or not parameter.is_floating_point():
        return None
    rows, columns = parameter.shape[-2:]
    if isinstance(module, RNN):
        # (heads, gates, size, columns)
        whole = rows if by_gate else rows * parameter.shape[1]
        return (whole, columns) if name in ("weight", "recurrent") else None
    if isinstance(module, Layer):
        return None
    if isinstance(module, _ConvNd):
        return parameter.shape[0], parameter[0].numel()
    if isinstance(module, nn.RNNBase | nn.RNNCellBase) and by_gate and not rows % module.hidden_size:
        return module.hidden_size, columns
    return rows, columns
