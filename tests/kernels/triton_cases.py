"""What the tests of Triton kernels go over: INTERPRETED, small cases to run; COMPILED, launches to compile for a GPU."""

from dataclasses import dataclass, replace

import torch

from tests.kernels.cases import PRIMITIVES, Case, Inputs


@dataclass(frozen=True)
class Small:
    """Sizes that the interpreter gets through in a second or two: it runs the programs of a grid one after another."""

    case: Case
    B: int
    T: int
    H: int
    D: int
    differences: int = 2  # steps over which finite differences are taken


@dataclass(frozen=True)
class Launch:
    """A forward and a backward of a case, with heads of size D in that dtype. `barriers`: the bound on a loop's body.

    `exact`: float32 is multiplied as float32, not as tf32. `spills`: known to keep some of a thread's values in memory.
    """

    case: str
    D: int
    dtype: torch.dtype = torch.bfloat16
    barriers: int | None = None
    B: int = 16
    T: int = 64
    H: int = 2
    exact: bool = False
    spills: bool = False

    def __str__(self) -> str:
        return f"{self.case}-{self.D}-{str(self.dtype).removeprefix('torch.')}{'-exact' * self.exact}"


def _square(name: str, chunk: int) -> Case:
    """The case with as many values as keys: a program holds powers of two."""
    case = PRIMITIVES[name]

    def draw(B: int, T: int, H: int, D: int, draws: torch.Generator) -> Inputs:
        inputs = case.draw(B, T, H, D, draws)
        return {**inputs, "v": inputs["v"][..., :D]}

    return replace(case, draw=draw, options={**case.options, "chunk": chunk})


CHUNKED = (
    "linear_attention-none",
    "linear_attention-scalar",
    "delta_rule",
    "delta_rule-product",
    "delta_rule-gated-product",
)
CASES = {**PRIMITIVES, **{f"{name}-square": _square(name, chunk=64) for name in CHUNKED}}
CELLS = ("elman", "lstm", "gru", "slstm")
# Name -> case; the name begins with its primitive's.
INTERPRETED: dict[str, Small] = {
    **{f"rnn-{cell}": Small(PRIMITIVES[f"rnn-{cell}"], 3, 3, 2, 4) for cell in CELLS},
    **{f"scan-{kind}": Small(PRIMITIVES[f"scan-{kind}"], 2, 5, 2, 20, 3) for kind in ("real", "reset", "reverse")},
    # Two steps short of two chunks, two whole chunks, and one step more; finite differences of a single step.
    **{f"{name}-{T}": Small(_square(name, 4), 1, T, 2, 4, 1) for name in CHUNKED[1:3] for T in (6, 8, 9)},
    # Two samples, two chunks and more; finite differences of a chunk and a half.
    **{f"{name}-short": Small(_square(name, 2), 2, 4, 1, 4, 3) for name in CHUNKED},
}
COMPILED: list[Launch] = [
    *(Launch(f"rnn-{cell}", D, barriers=12) for cell in CELLS for D in (16, 32, 64)),
    *(Launch(f"rnn-{cell}", 128, barriers=12, spills=cell != "elman") for cell in CELLS),
    *(Launch(f"rnn-{cell}", 64, torch.float32, barriers=12) for cell in CELLS),
    *(Launch(f"rnn-{cell}", D, torch.float32, barriers=12, exact=True) for cell in CELLS for D in (16, 32, 64)),
    *(Launch("scan-real", 64, dtype) for dtype in (torch.bfloat16, torch.float32)),
    *(Launch(f"{name}-square", D, T=256, B=2) for name in CHUNKED[1:3] for D in (16, 32, 64, 128)),
    *(Launch(f"{name}-square", 64, torch.float32, T=256, B=2) for name in CHUNKED[1:3]),
    *(Launch(f"{name}-square", 128, torch.float32, T=256, B=2, spills=True) for name in CHUNKED[1:3]),
]
