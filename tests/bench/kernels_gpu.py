"""make bench-gpu: the Triton kernels on a GPU: agreement with float64 on the CPU, then times beside torch's own.

    python tests/bench/kernels_gpu.py [--smoke]

Medians of triton.testing.do_bench, forward, and forward with backward, in bfloat16, T = 1024, heads that make a width of 768:
ours; nn.LSTM of that width (cuDNN: a denser model); nn.LSTM of as many recurrent FLOPs; a plain loop. Linear attention and the
gated delta rule beside flash-linear-attention, where that is installed. `--smoke`: tiny, on the CPU, by the eager backend, to
see that every line runs; its times say nothing.
"""

import argparse
import importlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from kernel_entries import Tensors, gradients, linear_loop, rnn_heads_loop
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from distseq import kernels
from tests.kernels.cases import PRIMITIVES
from tests.kernels.comparing import apart, cast, drawn

WIDTH, BOUND = 768, 1e-2
TRITON = "rnn=triton,scan=triton,linear_attention=triton,delta_rule=triton"
AGREEING = ("rnn-lstm", "rnn-gru", "rnn-elman", "rnn-slstm", "scan-real", "linear_attention-scalar", "delta_rule")
Contenders = dict[str, Callable[[Tensors], Tensor]]  # a module is one whose parameters have gradients, too


@dataclass(frozen=True)
class Machine:
    device: str
    backend: str  # what DISTSEQ_KERNELS asks for
    dtype: torch.dtype
    smoke: bool

    def milliseconds(self, run: Callable[[], object]) -> float:
        """The median of a call; of three, where nothing is measured."""
        if not self.smoke:
            found = importlib.import_module("triton.testing").do_bench(run, warmup=50, rep=200, return_mode="median")
            return float(found)
        seconds = []
        for _ in range(3):
            begun = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begun)
        return 1e3 * statistics.median(seconds)

    def tensors(self, **made: Tensor) -> Tensors:
        return {name: each.to(self.device, self.dtype).requires_grad_() for name, each in made.items()}


def agreement(machine: Machine) -> Iterator[str]:
    """Relative RMS of y and of the gradients against the loop in float64 on the CPU, at odd B and T. SystemExit beyond BOUND."""
    for name in AGREEING:
        case, D = PRIMITIVES[name], 16 if machine.smoke else 64
        inputs = drawn(case, 3, 37, 2, D)
        if "v" in inputs:
            inputs["v"] = inputs["v"][..., :D].contiguous()
        rounded = {key: cast(each, machine.dtype) for key, each in inputs.items()}
        worst = 0.0
        results = []
        for backend, device, dtype in (
            ("reference", "cpu", torch.float64),
            (machine.backend, machine.device, machine.dtype),
        ):
            os.environ["DISTSEQ_KERNELS"] = backend
            own = {key: each.to(device, dtype).requires_grad_() for key, each in rounded.items()}
            y = case.run(own)[0]
            found = [y, *torch.autograd.grad(y, list(own.values()), torch.ones_like(y))]
            results.append([each.detach().double().cpu() for each in found])
        worst = max(apart(found, expected) for expected, found in zip(*results, strict=True))
        yield f"| {name} | {worst:.1e} |"
        if not worst <= BOUND:
            sys.exit(f"{name} differs from float64 by {worst:.1e}, more than {BOUND:.0e}")


class Dense(nn.Module):
    """nn.LSTM of `size` on inputs of `width`."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, size, batch_first=True)

    def forward(self, t: Tensors) -> Tensor:
        y: Tensor = self.lstm(t["u"])[0]
        return y


def lstm(machine: Machine, B: int, T: int, H: int, D: int) -> tuple[Tensors, Contenders]:
    """Contenders take what they need of the inputs; the input projection is part of nn.LSTM, so ours has it too."""
    width, equal = H * D, round(H**0.5 * D)  # 4 H D^2 recurrent products are those of one head of sqrt(H) D
    inputs = machine.tensors(
        u=torch.randn(B, T, width),
        w=torch.randn(4 * width, width) * width**-0.5,
        b=torch.zeros(4 * width),
        r=torch.randn(H, 4, D, D) * D**-0.5,
    )
    dense = {size: Dense(width, size).to(machine.device, machine.dtype) for size in {width, equal}}
    return inputs, {
        "ours": lambda t: kernels.dense_rnn(t["u"], t["w"], t["b"], t["r"])[0].flatten(2),
        f"nn.LSTM {width}": dense[width],
        f"nn.LSTM {equal}, equal FLOPs": dense[equal],
        "loop": rnn_heads_loop,
    }


def keyed(machine: Machine, B: int, T: int, H: int, D: int) -> Tensors:
    return machine.tensors(
        q=torch.randn(B, T, H, D),
        k=nn.functional.normalize(torch.randn(B, T, H, D), dim=-1),
        v=torch.randn(B, T, H, D),
        g=-torch.rand(B, T, H),
    )


def matrices(machine: Machine, B: int, T: int, H: int, D: int) -> Iterator[tuple[str, Tensors, Contenders]]:
    inputs = keyed(machine, B, T, H, D)
    contenders: Contenders = {"ours": lambda t: kernels.linear_attention(**t, chunk=64)[0], "loop": linear_loop}
    flash = _flash("simple_gla", "chunk_simple_gla")
    if flash:
        contenders["flash-linear-attention"] = lambda t: flash(t["q"], t["k"], t["v"], g=t["g"], scale=1.0)[0]
    yield "linear_attention", inputs, contenders
    inputs = {**keyed(machine, B, T, H, D), **machine.tensors(beta=torch.rand(B, T, H))}
    contenders = {"ours": lambda t: kernels.delta_rule(**t, chunk=64)[0]}
    flash_delta = _flash("gated_delta_rule", "chunk_gated_delta_rule")
    if flash_delta:
        contenders["flash-linear-attention"] = lambda t: flash_delta(
            t["q"], t["k"], t["v"], g=t["g"], beta=t["beta"], scale=1.0
        )[0]
    yield "delta_rule", inputs, contenders


def _flash(module: str, name: str) -> Callable[..., tuple[Tensor, ...]] | None:
    try:
        found: Callable[..., tuple[Tensor, ...]] = getattr(importlib.import_module(f"fla.ops.{module}"), name)
    except ImportError:
        print(f"(flash-linear-attention is not installed: no {name})")
        return None
    return found


def timed(machine: Machine, name: str, shape: str, inputs: Tensors, contenders: Contenders) -> None:
    os.environ["DISTSEQ_KERNELS"] = machine.backend
    first: tuple[float, float] | None = None
    for contender, run in contenders.items():
        own = dict(run.named_parameters()) if isinstance(run, nn.Module) else {}
        weights = torch.randn_like(run(inputs))
        with torch.no_grad():
            forward = machine.milliseconds(partial(run, inputs))
        both = machine.milliseconds(partial(gradients, run, {**inputs, **own}, weights))
        first = first or (forward, both)
        print(
            f"| {name} | {shape} | {contender} | {forward:.2f} | {both:.2f} | {forward / first[0]:.2f} | {both / first[1]:.2f} |",
            flush=True,
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--smoke", action="store_true")
    options = arguments.parse_args()
    if not options.smoke and not torch.cuda.is_available():
        sys.exit("no GPU here: --smoke runs every line on the CPU")
    torch.manual_seed(0)
    machine = (
        Machine("cpu", "eager", torch.float32, True)
        if options.smoke
        else Machine("cuda", TRITON, torch.bfloat16, False)
    )
    where = "CPU, nothing is measured" if options.smoke else torch.cuda.get_device_name()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {where}, torch {torch.__version__}, Python {platform.python_version()}\n")
    print("| primitive | relative RMS to float64, worst of values and gradients |\n|---|---|")
    for line in agreement(machine):
        print(line, flush=True)
    print(
        "\n| primitive | shape | contender | forward, ms | with backward, ms | of ours | of ours |\n|---|---|---|---|---|---|---|"
    )
    T, width = (8, 32) if options.smoke else (1024, WIDTH)
    for B in (2, 3) if options.smoke else (16, 256):
        for D in (8, 16) if options.smoke else (32, 64, 128):
            timed(machine, "lstm", f"B {B}, T {T}, {width // D} x {D}", *lstm(machine, B, T, width // D, D))
    for D in (8,) if options.smoke else (64, 128):
        B, H = (2, 2) if options.smoke else (8, 8)
        for name, inputs, contenders in matrices(machine, B, T, H, D):
            timed(machine, name, f"B {B}, T {T}, {H} x {D}", inputs, contenders)


if __name__ == "__main__":
    main()
