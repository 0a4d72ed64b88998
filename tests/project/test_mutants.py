"""The tests have teeth: each of these one-line mistakes in a scheme, the ledger or the scheduler makes a test fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("distseq", "coding", "cluster", "kernels", "models", "tests")
LEDGER, ROUNDS, SCRIPT = (
    "tests/coding/test_ledger.py",
    "tests/distseq/scheduling/test_round_scheduler.py",
    "tests/coding/test_transcripts.py",
)


class Mutant(NamedTuple):
    file: str
    right: str
    wrong: str
    killer: str


SAFE = f"{LEDGER}::test_a_round_is_safe_exactly_when_complete_later_rounds_would_meet_every_deadline"
CONFORMING = f"{LEDGER}::test_random_patterns_of_each_model_of_any_scheme_need_no_waiting"
EXACT = f"{ROUNDS}::test_any_delays_give_every_learner_its_exact_sums_in_order_and_on_time"
PIPELINE = "tests/distseq/scheduling/test_pipeline_scheduler.py"
RULES = f"{PIPELINE}::test_any_delays_give_every_learner_its_exact_sums_in_order_and_by_the_rules"
E4 = f"{SCRIPT}::test_e4_sr_sgc_repeats_one_row_of_the_job_that_missed_two"
TRAP = f"{SCRIPT}::test_sr_sgc_with_repetition_lets_one_member_of_a_silent_set_repeat_and_the_other_go_on"

AGAIN = "tests/coding/schemes/test_redispatch.py"

MUTANTS = [
    # schemes
    Mutant("coding/schemes/m_sgc.py", "np.where(lost.any(axis=0)", "np.where(lost.all(axis=0)", CONFORMING),
    Mutant("coding/schemes/m_sgc.py", "behind <= group - retried - 1", "behind <= group - retried", SAFE),
    Mutant(
        "coding/schemes/sr_sgc.py", "repeat[np.flatnonzero(~has)[: max(0, need)]] = True", "repeat[~has] = True", E4
    ),
    Mutant(
        "coding/schemes/sr_sgc.py",
        "repeat[(code.starts + t % sizes)[silent]] = True",
        "repeat[silent[code.replica_set]] = True",
        TRAP,
    ),
    # ledger
    Mutant(
        "coding/ledger.py",
        "if start is None or self._rows[start][task.group, task.worker]:",
        "if start is None:",
        f"{LEDGER}::test_a_row_in_hand_counts_once",
    ),
    Mutant(
        "coding/ledger.py",
        "start + self.scheme.delay <= self.round",
        "start + self.scheme.delay < self.round",
        f"{LEDGER}::test_an_overdue_job_is_a_broken_promise",
    ),
    Mutant(
        "coding/ledger.py",
        "return not self.met and self._need <= 0",
        "return not self.met and self._need < 0",
        f"{LEDGER}::test_a_late_row_still_counts",
    ),
    # scheduler
    Mutant(
        "distseq/scheduling/round_scheduler.py",
        "all(self._closing.enough(stream, progress) for stream in self._streams)",
        "any(self._closing.enough(stream, progress) for stream in self._streams)",
        f"{ROUNDS}::test_jobs_that_are_open_at_a_move_finish_under_their_own_scheme",
    ),
    Mutant(
        "distseq/scheduling/round_scheduler.py",
        "cancel = [] if self._late else sorted(self._sent)",
        "cancel = sorted(self._sent)",
        f"{ROUNDS}::test_a_late_row_that_nobody_repeats_counts",
    ),
    Mutant(
        "distseq/scheduling/round_scheduler.py",
        "job, learner = self._ready.popleft()",
        "job, learner = self._ready.pop()",
        f"{ROUNDS}::test_the_ready_learner_that_has_waited_longest_goes_first",
    ),
    Mutant(
        "distseq/scheduling/round_scheduler.py",
        "if delivery.stale:",
        "if False:",
        f"{ROUNDS}::test_word_of_a_stale_invocation_is_no_row",
    ),
    Mutant(
        "distseq/scheduling/round_scheduler.py",
        "staying <= self._scheme.delay:",
        "staying < self._scheme.delay:",
        f"{ROUNDS}::test_unequal_learners_move_to_schemes_of_smaller_delay_and_lose_no_job",
    ),
    Mutant(
        "distseq/scheduling/round_scheduler.py",
        "self._forget([job])",
        "pass",
        f"{ROUNDS}::test_a_round_does_not_wait_for_rows_of_a_job_that_is_withdrawn",
    ),
    Mutant(
        "distseq/scheduling/round_scheduler.py",
        "self._left[learner] = 0",
        "pass",
        f"{ROUNDS}::test_a_failure_that_leaves_too_few_learners_moves_to_a_scheme_of_smaller_delay",
    ),
    Mutant("distseq/scheduling/pipeline_scheduler.py", "parts[0].group)).popleft()", "parts[0].group)).pop()", RULES),
    Mutant("distseq/scheduling/pipeline_scheduler.py", "if other != task:", "if False:", RULES),
    Mutant("distseq/scheduling/pipeline_scheduler.py", "if self._frees:", "if True:", RULES),
    Mutant(
        "distseq/scheduling/pipeline_scheduler.py",
        "len(part.copies) < self._pipeline.copies:\n            self._site",
        "True:\n            self._site",
        RULES,
    ),
    Mutant("distseq/scheduling/pipeline_scheduler.py", "next(iter(parts))", "next(reversed(parts))", RULES),
    Mutant("distseq/scheduling/pipeline_scheduler.py", "fresh=k > 0)", "fresh=False)", RULES),
    Mutant("distseq/scheduling/pipeline_scheduler.py", "for k in places:", "for k in range(len(places)):", RULES),
    Mutant(
        "distseq/scheduling/pipeline_scheduler.py",
        "self._assume_idle(0)",
        "pass",
        f"{PIPELINE}::test_a_worker_is_taken_for_idle_when_nothing_else_would_go_on",
    ),
    Mutant(
        "distseq/scheduling/pipeline_scheduler.py",
        "self._assume_idle(PATIENCE * len(self._workers))",
        "pass",
        f"{PIPELINE}::test_a_worker_that_never_says_that_it_is_done_is_taken_for_idle_in_the_end",
    ),
    Mutant(
        "distseq/scheduling/pipeline_scheduler.py",
        "if not delivery.stale and task.job in self._jobs:",
        "if task.job in self._jobs:",
        f"{PIPELINE}::test_word_of_a_stale_invocation_is_no_row",
    ),
    Mutant(
        "distseq/scheduling/closing.py",
        "progress.begun + (1 + self.mu) * (progress.first_finish - progress.begun)",
        "progress.begun + self.mu * (progress.first_finish - progress.begun)",
        f"{ROUNDS}::test_a_conforming_pattern_never_waits",
    ),
    Mutant(
        "distseq/scheduling/closing.py",
        "return stream.ledger.safe()",
        "return stream.ledger.due_complete()",
        EXACT,
    ),
    # parts that any worker may do
    Mutant(
        "coding/schemes/redispatch.py",
        "while first in taken:",
        "while False:",
        f"{AGAIN}::test_each_missing_part_goes_to_as_many_workers_as_there_are_copies_and_the_new_job_to_all",
    ),
    Mutant(
        "coding/ledger.py",
        "plan = plan.among(order)",
        "pass",
        f"{AGAIN}::test_the_first_workers_of_the_order_get_what_is_missing",
    ),
    Mutant(
        "distseq/scheduling/backup.py",
        "if len(self._missing) > self._threshold:",
        "if len(self._missing) >= self._threshold:",
        "tests/distseq/scheduling/test_backup.py::test_the_first_row_of_a_part_counts",
    ),
    Mutant(
        "distseq/scheduling/backup.py",
        "if group not in self._copied]",
        "]",
        "tests/distseq/scheduling/test_backup.py::test_missing_parts_are_copied_once_each_to_idle_workers",
    ),
    Mutant(
        "distseq/scheduling/latency.py",
        "times[worker] = max(first, silent)",
        "times[worker] = first",
        "tests/distseq/scheduling/test_latency.py::test_who_has_not_answered_takes_at_least_as_long_as_it_has_been_silent",
    ),
    Mutant(
        "distseq/scheduling/adaptive/rare_events.py",
        "max(RATE, self.events / self.invocations)",
        "self.events / self.invocations",
        "tests/distseq/scheduling/test_latency.py::test_long_start_ups_are_expected_before_any_was_seen",
    ),
    # what the differential test sees too seldom
    Mutant(
        "distseq/gradients/modes.py",
        "    model.eval()\n",
        "    model.train()\n",
        "tests/distseq/learners/test_plain_torch.py::test_evaluation_is_in_evaluation_mode_and_training_in_the_mode_that_each_module_had",
    ),
    Mutant(
        "distseq/learners/trials/contract.py",
        "if payload.blocks and not payload.joint:",
        "if False:",
        "tests/distseq/learners/test_trial.py::test_samples_that_are_coupled_within_a_block_of_random_draws_are_refused",
    ),
]


def run(tree: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    options = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "quick-to-fail", "-m", "slow or not slow")
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources to break."""
    copy = tmp_path_factory.mktemp("mutants")
    for folder in FOLDERS:
        # Links stay links: a mutant in a copy beside the one that is imported would live.
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.mark.slow
def test_the_killing_tests_pass_on_the_sources_as_they_are(tree: Path) -> None:
    result = run(tree, *sorted({mutant.killer for mutant in MUTANTS}))
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{m.file}:{m.wrong}" for m in MUTANTS])
def test_a_mutant_is_killed(tree: Path, mutant: Mutant) -> None:
    killed(tree, mutant)


def killed(tree: Path, mutant: Mutant) -> str:
    """What the test that fails with the mutant prints. AssertionError if it passes."""
    path = tree / mutant.file
    source = path.read_text()
    assert source.count(mutant.right) == 1, f"{mutant.right!r} must occur once in {mutant.file}"
    path.write_text(source.replace(mutant.right, mutant.wrong))
    try:
        result = run(tree, mutant.killer)
        assert result.returncode == 1, f"{mutant} lives\n{result.stdout}"
        return result.stdout
    finally:
        path.write_text(source)
