"""The bits of a run do not depend on threads; the driver uses one, or what the environment says, and gives back what it found."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import distseq
from distseq.cluster.system.blas_threads import _loaded, blas_threads
from distseq.gradients.problem import build_model
from distseq.gradients.threads import one_thread
from distseq.training.threads import VARIABLES, driver_threads

ROOT = Path(__file__).resolve().parents[3]
WIDTH = 256
EXTRA = 4  # numbers of a row behind the gradient of two parameters
# Trains, and prints a digest of the weights, then torch's threads during and after the run.
TRAIN = """
import hashlib, sys
from pathlib import Path
import torch, distseq
from tests.distseq.training.test_threads import Seen, job
seen = Seen()
before = torch.get_num_threads()
result = distseq.train(job(), out=sys.argv[1], watchers=[seen])
digest = hashlib.sha1((result.folder / "weights" / "a.safetensors").read_bytes()).hexdigest()
print("result", digest, seen.threads, torch.get_num_threads() - before, before)
"""


class Square(nn.Module):
    """More numbers than torch handles in one thread, drawn by a decomposition, which LAPACK does in several."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)))

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        return (self.weight[batch["inputs"]].sum(1) @ self.weight).tanh().square().sum(1)


class ByTheSum(torch.optim.SGD):
    """As optimizers that scale a step by sums of the gradient do (Adafactor, LAMB)."""

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad *= parameter.grad.sum()
        super().step()


class Seen(distseq.Observer):
    """torch's threads in the driver while it trains."""

    threads = 0

    def job_applied(self, *job: object) -> None:
        self.threads = torch.get_num_threads()


def job() -> dict[str, Any]:
    learner = {
        "name": "a",
        "model": f"{__name__}:Square",
        "data": "distseq.models.data.synthetic:group_words",
        "data_args": {"points": 3, "length": 4},
        "batch": 8,
        "clip": 0.1,
        "optimizer_args": {"lr": 0.01},
    }
    return {
        "learner": [learner],
        "run": {"steps": 4},
        "pool": {"kind": "simulated", "workers": 4},
        "scheduler": {"scheme": "gc:1"},
    }


def train(folder: Path, **variables: str) -> tuple[list[str], str]:
    """The words of the line that TRAIN prints, and all else, in an environment with these variables and no others."""
    bare = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    words = [sys.executable, "-c", TRAIN, str(folder)]
    found = subprocess.run(words, cwd=ROOT, env=bare | variables, capture_output=True, text=True, check=True)
    *lines, last = found.stdout.splitlines()
    return last.split()[1:], "\n".join(lines)


def test_the_bits_of_a_run_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    one, said = train(tmp_path / "one", OMP_NUM_THREADS="1")
    assert "threads: OMP_NUM_THREADS=1 is kept to by the driver; rows and optimizer steps use one" in said
    two, said = train(tmp_path / "two", OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2")
    assert "threads: OMP_NUM_THREADS=2, OPENBLAS_NUM_THREADS=2 is kept to by the driver" in said
    free, said = train(tmp_path / "free")
    assert "threads" not in said
    assert one[0] == two[0] == free[0]
    # During the run, and what has changed after it.
    assert (one[1:3], two[1:3], free[1:3]) == (["1", "0"], [two[3], "0"], ["1", "0"])


@pytest.fixture
def three_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_initial_weights_have_the_bits_of_one_thread() -> None:
    """A decomposition by LAPACK cuts its work by the number of threads."""
    target = f"{__name__}:Square"
    weights = [bytes(build_model(target, {}, 0, torch.float32).weight.detach().numpy()) for _ in range(2)]  # type: ignore[arg-type, union-attr]
    torch.set_num_threads(1)
    weights.append(bytes(build_model(target, {}, 0, torch.float32).weight.detach().numpy()))  # type: ignore[arg-type, union-attr]
    assert len(set(weights)) == 1


@pytest.mark.usefixtures("three_threads")
def test_steps_have_the_bits_of_one_thread() -> None:
    def stepped() -> bytes:
        torch.manual_seed(0)
        model = nn.Linear(WIDTH, WIDTH)
        optimizer = ByTheSum(model.parameters(), 0.1)
        data = torch.utils.data.TensorDataset(torch.zeros(4, 1))
        learner = distseq.Learner(
            "a", model, optimizer, data=data, batch=2, steps=3, clip=0.1, ema=0.5, loss=lambda model, batch: batch[0]
        )
        draws = np.random.default_rng(0)
        for _ in range(3):
            learner.apply(np.concatenate([draws.normal(size=len(learner.publish())), np.ones(EXTRA)]))
        return learner.publish().tobytes()

    three = stepped()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    assert stepped() == three


@pytest.mark.usefixtures("three_threads")
def test_threads_are_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    seen = []

    def broken() -> None:
        with driver_threads():
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert seen == [1]
    assert torch.get_num_threads() == 3


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at /proc")
def test_numpys_blas_is_found_and_set() -> None:
    libraries = _loaded(len(sys.modules))
    assert libraries, np.show_config("dicts")
    with blas_threads(2):
        assert [library.get() for library in libraries] == [2] * len(libraries)
        with one_thread():
            assert [library.get() for library in libraries] == [1] * len(libraries)
        assert [library.get() for library in libraries] == [2] * len(libraries)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_sum_that_is_not_finite_is_still_refused(number: float) -> None:
    model = nn.Linear(2, 1)
    data = torch.utils.data.TensorDataset(torch.zeros(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    learner = distseq.Learner("a", model, optimizer, data=data, batch=2, steps=3, loss=lambda model, batch: batch[0])
    for place in range(3 + EXTRA):
        total = np.ones(3 + EXTRA)
        total[place] = number
        with pytest.raises(FloatingPointError, match="the decoded gradient is not finite"):
            learner.apply(total)
    both = np.array([np.inf, -np.inf, *np.ones(1 + EXTRA)])
    with pytest.raises(FloatingPointError, match="the decoded gradient is not finite"):
        learner.apply(both)
