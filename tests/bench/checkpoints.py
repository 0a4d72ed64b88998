"""What checkpoints cost: seconds per job of many small learners with them and without, by the clock and of the driver's CPU.

make bench-checkpoints ARGS="--learners 256 --steps 20"
"""

import argparse
import io
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

import distseq


class Model(torch.nn.Module):
    """A GRU of 90 thousand parameters, or fewer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = torch.nn.GRU(8, width, batch_first=True)
        self.head = torch.nn.Linear(width, 1)

    def per_sample_loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.as_tensor((self.head(self.rnn(batch[0])[0])[:, -1] - batch[1]).square().mean(1))


def learners(count: int, steps: int, width: int) -> list[distseq.Learner]:
    generator = torch.Generator().manual_seed(0)
    data = torch.utils.data.TensorDataset(
        torch.randn(64, 8, 8, generator=generator), torch.randn(64, 1, generator=generator)
    )
    models = [Model(width) for _ in range(count)]
    return [
        distseq.Learner(
            f"learner-{k}", model, torch.optim.Adam(model.parameters(), 1e-3), data=data, batch=4, steps=steps
        )
        for k, model in enumerate(models)
    ]


class Clock(distseq.Observer):
    """Seconds between two jobs, by the clock of the machine, and of CPU in all threads of this process."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.jobs = first, last, 0
        self.begun = self.ended = np.zeros(2)

    def job_applied(self, *job: object) -> None:
        self.jobs += 1
        if self.jobs == self.first:
            self.begun = np.array([time.perf_counter(), time.process_time()])
        if self.jobs == self.last:
            self.ended = np.array([time.perf_counter(), time.process_time()])


def seconds_per_job(every: int | None, options: argparse.Namespace, folder: Path) -> np.ndarray:
    total = options.learners * options.steps
    # Not the first jobs, in which everything is done for the first time.
    clock = Clock(options.learners, total)
    distseq.train(
        learners(options.learners, options.steps, options.width),
        pool=options.pool,
        workers=options.workers,
        scheme="uncoded",
        delays="none",
        checks=0,
        checkpoint_every=every,
        out=folder / "run",
        console=Console(file=io.StringIO()),
        watchers=[clock],
    )
    shutil.rmtree(folder / "run")
    return np.asarray((clock.ended - clock.begun) / (clock.last - clock.first))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learners", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=None, help="jobs between checkpoints; by default as of a user")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pool", default="local")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--folder", default=None, help="where the run folders are made; by default the temporary folder"
    )
    options = parser.parse_args()
    parameters = sum(p.numel() for p in Model(options.width).parameters())
    print(
        f"{options.learners} learners of {parameters} parameters, Adam, pool {options.pool}, {options.workers} workers, "
        f"a checkpoint every {options.every or 'so many'} jobs"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        # In turns: a machine that becomes slower meanwhile does so for both.
        pairs = [
            [seconds_per_job(every, options, Path(folder)) for every in (0, options.every)]
            for _ in range(options.repetitions)
        ]
    for k, what in enumerate(("by the clock", "CPU of the driver")):
        without, kept = np.median([[pair[0][k], pair[1][k]] for pair in pairs], axis=0)
        ratio = np.median([pair[1][k] / pair[0][k] for pair in pairs])
        print(
            f"{what:<18} {1e3 * without:8.2f} ms/job without checkpoints, {1e3 * kept:8.2f} with them: "
            f"{ratio:.3f} times"
        )


if __name__ == "__main__":
    main()
