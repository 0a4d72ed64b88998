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


CELLS = ("elman", "lstm", "gru", "slstm")
# Name -> case; the name begins with its primitive's.
INTERPRETED: dict[str, Small] = {
    **{f"rnn-{cell}": Small(PRIMITIVES[f"rnn-{cell}"], 3, 3, 2, 4) for cell in CELLS},
}
COMPILED: list[Launch] = [
    *(Launch(f"rnn-{cell}", D, barriers=12) for cell in CELLS for D in (16, 32, 64)),
    *(Launch(f"rnn-{cell}", 128, barriers=12, spills=cell != "elman") for cell in CELLS),
    *(Launch(f"rnn-{cell}", 64, torch.float32, barriers=12) for cell in CELLS),
    *(Launch(f"rnn-{cell}", 32, torch.float32, barriers=12, exact=True) for cell in CELLS),
    *(Launch(f"rnn-{cell}", 64, torch.float32, barriers=12, exact=True, spills=cell != "elman") for cell in CELLS),
]
