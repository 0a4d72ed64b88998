"""Memory of the driver over a long run of tiny jobs: MB at the end, and how many it gains per 1,000 jobs after a warm-up.

make bench-memory ARGS="--jobs 20000"
"""

import argparse
import io
import resource
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

import distseq

SAMPLES = 200  # of the memory, over the whole run
PAGE = resource.getpagesize()


class Memory(distseq.Observer):
    """(jobs, MB) of this process, now and then."""

    def __init__(self, every: int) -> None:
        self.every, self.jobs, self.seen = every, 0, list[tuple[int, float, float]]()

    def job_applied(self, learner: str, step: int, metrics: object, now: float) -> None:
        self.jobs += 1
        if self.jobs % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.seen.append((self.jobs, pages * PAGE / 1e6, now))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--pool", default="local")
    options = parser.parse_args()

    def loss(model: torch.nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        return torch.as_tensor((model(batch[0]) - batch[1]).square().mean(1))

    model = torch.nn.Linear(4, 1)
    data = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    learner = distseq.Learner("m", model, optimizer, data=data, batch=8, steps=options.jobs, loss=loss)
    memory = Memory(max(1, options.jobs // SAMPLES))
    with tempfile.TemporaryDirectory() as folder:
        distseq.train(
            [learner],
            pool=options.pool,
            workers=options.workers,
            scheme="gc:1",
            delays="none",
            out=Path(folder) / "run",
            console=Console(file=io.StringIO()),
            watchers=[memory],
        )
    jobs, used, now = np.array(memory.seen[len(memory.seen) // 4 :]).T
    slope = np.polyfit(jobs, used, 1)[0] * 1000
    print(f"{options.jobs} jobs on {options.workers} workers of the {options.pool} pool: {used[-1]:.1f} MB at the end")
    print(f"{slope:+.3f} MB per 1,000 jobs after a quarter of them")
    half = len(now) // 2
    early, late = (now[half] - now[0]) / (jobs[half] - jobs[0]), (now[-1] - now[half]) / (jobs[-1] - jobs[half])
    print(f"seconds per job: {early:.5f} in the first half of the rest, {late:.5f} in the second")


if __name__ == "__main__":
    main()
