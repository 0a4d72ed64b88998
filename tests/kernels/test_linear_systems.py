"""Every linear primitive is a linear dynamical system h_t = A_t h_{t-1} + B_t u_t, y_t = C_t h_t + D_t u_t of dense matrices.

Shapes: T time, K keys, V values, of one sample with one head or channel.
"""

import pytest
import torch
from torch import Tensor

from tests.kernels.cases import PRIMITIVES
from tests.kernels.comparing import copies, weighed, worst

T = 37
System = tuple[Tensor, Tensor, Tensor, Tensor]


def _shift(taps: Tensor, dilation: int) -> System:
    """Of one channel: the state is its inputs up to the present one, the oldest first."""
    size = (len(taps) - 1) * dilation + 1
    C = torch.zeros(1, size, dtype=taps.dtype).index_copy(1, torch.arange(0, size, dilation), taps[None])
    A, last = torch.eye(size, dtype=taps.dtype), torch.eye(size, dtype=taps.dtype)[:, -1:]
    return A.roll(1, 1) - last @ A[:1], last, C, torch.zeros(1, 1, dtype=taps.dtype)


def _dense(name: str, inputs: dict[str, Tensor]) -> tuple[list[System], Tensor]:
    """(A, B, C, D) of each step, and u (T, inputs of the system)."""
    op = PRIMITIVES[name].op
    if op == "scan":
        a, x = inputs["a"].expand(inputs["x"].shape)[0, :, 0], inputs["x"][0, :, 0]
        eye = torch.eye(x.shape[1], dtype=a.dtype)
        return [(torch.diag(a_D), eye, eye, 0 * eye) for a_D in a], x.to(a.dtype)
    if op in ("short_conv", "fft_conv"):
        taps = inputs["w"][0] if op == "short_conv" else inputs["k"][0].flip(0)
        return [_shift(taps, int(PRIMITIVES[name].options.get("dilation", 1)))] * T, inputs["x"][0]
    if op == "selective_scan":
        dt, A, B, C = inputs["dt"][0, :, 0], inputs["A"][0], inputs["B"][0], inputs["C"][0]
        steps = zip(dt, B, C, strict=True)
        return [(torch.diag(torch.exp(s * A)), s * b[:, None], c[None], inputs["D"][:, None]) for s, b, c in steps], (
            inputs["u"][0]
        )
    # The state is K x V, and every column of it goes its own way: u and y are rows of V.
    q, k = inputs["q"][0, :, 0], inputs["k"][0, :, 0]
    K, V, beta = q.shape[1], inputs["v"].shape[-1], inputs.get("beta")
    g = inputs["g"][0, :, 0].view(T, -1).expand(T, K) if "g" in inputs else q.new_zeros(T, K)
    identity, decays, columns = torch.eye(K, dtype=q.dtype), torch.exp(g), torch.eye(V, dtype=q.dtype)
    systems = []
    for t in range(T):
        A, B = torch.diag(decays[t]), k[t][:, None]
        if beta is not None:
            A, B = (identity - beta[0, t, 0] * torch.outer(k[t], k[t])) @ A, beta[0, t, 0] * B
        none = q.new_zeros(V, V)
        systems.append((torch.kron(A, columns), torch.kron(B, columns), torch.kron(q[t][None], columns), none))
    return systems, inputs["v"][0, :, 0]


LINEAR = [
    *(f"scan-{kind}" for kind in ("real", "complex", "invariant")),
    "selective_scan",
    *("short_conv", "short_conv-dilated", "fft_conv"),
    *(f"linear_attention-{decay}" for decay in ("none", "scalar", "vector")),
    "delta_rule",
]


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_a_linear_primitive_is_a_dense_linear_system(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSEQ_KERNELS", backend)
    drawn = PRIMITIVES[name].draw(1, T, 1, 3, torch.Generator().manual_seed(0))
    inputs = dict(zip(drawn, copies(*drawn.values()), strict=True))
    systems, u = _dense(name, inputs)
    h, y = u.new_zeros(len(systems[0][0])), []
    for (A, B, C, D), u_t in zip(systems, u, strict=True):
        h = A @ h + B @ u_t
        y.append(C @ h + D @ u_t)
    found = PRIMITIVES[name].run(inputs)[0]
    expected = torch.stack(y).view(found.shape)
    own = list(inputs.values())
    assert worst(weighed((found,), own), weighed((expected,), own)) <= 1e-10
