"""What the tests of Triton kernels go over: INTERPRETED, small cases to run; COMPILED, launches to compile for a GPU."""

from dataclasses import dataclass

import torch

from tests.kernels.cases import PRIMITIVES, Case


@dataclass(frozen=True)
class Small:
    """Sizes that the interpreter gets through in a second or two: it runs the programs of a grid one after another."""

    case: Case
    B: int
    T: int
    H: int
    D: int


@dataclass(frozen=True)
class Launch:
    """A forward and a backward of a case, with heads of size D in that dtype. `barriers`: the bound on a loop's body."""

    case: str
    D: int
    dtype: torch.dtype = torch.bfloat16
    barriers: int | None = None
    B: int = 16
    T: int = 64
    H: int = 2

    def __str__(self) -> str:
        return f"{self.case}-{self.D}-{str(self.dtype).removeprefix('torch.')}"


# Name -> case; the name begins with its primitive's.
INTERPRETED: dict[str, Small] = {
    **{f"rnn-{cell}": Small(PRIMITIVES[f"rnn-{cell}"], 3, 3, 2, 4) for cell in ("elman", "lstm", "gru", "slstm")},
}
COMPILED: list[Launch] = [
    *(Launch("rnn-lstm", D, barriers=12) for D in (16, 32, 64, 128)),
    *(Launch(f"rnn-{cell}", D) for cell in ("elman", "gru", "slstm") for D in (16, 32, 64, 128)),
    *(Launch(f"rnn-{cell}", 64, torch.float32) for cell in ("elman", "lstm", "gru", "slstm")),
]
