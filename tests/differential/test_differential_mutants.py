"""The differential test has teeth: defects that distseq once had, and their like, put back in one line, are found by it."""

import re
from pathlib import Path

import pytest

from tests.project import test_mutants
from tests.project.test_mutants import Mutant

tree = test_mutants.tree
pytestmark = [pytest.mark.long, pytest.mark.timeout(2000)]

TESTS = "tests/differential/test_differential.py::"
ANY = f"{TESTS}test_any_run_is_what_plain_pytorch_does_or_is_refused"
DRAWS = f"{TESTS}test_dropout_and_other_draws_are_those_of_a_loop_that_seeds_each_block"
COUNTS = f"{TESTS}test_losses_with_counts_are_divided_by_the_sum_of_counts"
LEARNER, DECODED = "distseq/learners/learner.py", "distseq/learners/decoded.py"

MUTANTS = {
    "unreached parameters get zeros": Mutant(
        DECODED, ".to(parameter.dtype) if reached else None", ".to(parameter.dtype)", ANY
    ),
    "hooks are dropped": Mutant(
        DECODED, "if not any(parameter._backward_hooks for parameter in parameters):", "if True:", ANY
    ),
    "complex buffers become real": Mutant(
        "distseq/gradients/problem.py",
        "t.to(dtype) if t.is_floating_point() else t",
        "t.to(dtype) if t.is_floating_point() or t.is_complex() else t",
        ANY,
    ),
    "the plateau is not that of the evaluation": Mutant(
        LEARNER, "self.schedule.step(loss)", "self.schedule.step(1.0)", ANY
    ),
    "losses are normalized per part": Mutant(
        "distseq/gradients/problem.py", "return losses_B, counts_B", "return losses_B / len(ids), counts_B", ANY
    ),
    "counts are ignored": Mutant(LEARNER, "float(whole[-1]) if self.counts else samples", "samples", COUNTS),
    "blocks are numbered by part": Mutant(
        "distseq/gradients/work.py",
        "return block_numbers(len(ids), payload.blocks) if blocks is None else blocks",
        "return block_numbers(len(ids), payload.blocks)",
        DRAWS,
    ),
    "seeds of blocks ignore the step": Mutant(
        "distseq/gradients/work.py",
        "block_seeds(payload.seed, payload.step, payload.blocks)",
        "block_seeds(payload.seed, 0, payload.blocks)",
        DRAWS,
    ),
    "a kernel's second derivative is missing": Mutant(
        "kernels/border.py", "        if not torch.is_grad_enabled():\n", "        if True:\n", ANY
    ),
}


# What the failing test must say. Unmutated it passes in the same amounts, under the profile `thorough`.
OFF, REFUSED = r"\S+ is off by", "AssertionError: refused: World"
SAYS = {
    "losses are normalized per part": REFUSED,
    "blocks are numbered by part": REFUSED,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed_for_what_it_does(tree: Path, name: str) -> None:
    printed = test_mutants.killed(tree, MUTANTS[name])
    assert re.search(f"^E .*{SAYS.get(name, OFF)}", printed, re.MULTILINE), printed
