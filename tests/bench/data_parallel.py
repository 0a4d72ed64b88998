"""Plain PyTorch, for comparison: one process per worker under DistributedDataParallel, joined by gloo, all models in one group.

Every rank computes its share of a batch of the first model, then of the next, and so on: models interleave step by step.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distseq.config.schema import Config, LearnerConfig
from distseq.learners.learner import Learner


class Step(NamedTuple):
    learner: int
    step: int
    at: float  # seconds since the beginning


class Trained(NamedTuple):
    """What the first rank saw. `parameters`: of each step (P,), in the order of `steps`, where they were asked for."""

    steps: list[Step]
    parameters: list[np.ndarray]
    peak: int  # bytes of its largest resident set


class Ranks:
    """`world` processes that train a job's models, from the weights that they are given, each time anew.

    They start when they are needed first, and again after they had to be ended.
    """

    def __init__(self, config: Config, world: int) -> None:
        self._models, self._world = json.dumps([asdict(one) for one in config.learner]), world
        self._ranks: list[subprocess.Popen[str]] = []
        self._folder = tempfile.TemporaryDirectory()
        self._over = False  # they were ended, and not yet waited for: whoever slows them down still has their ids

    def pids(self) -> list[int]:
        return [rank.pid for rank in self._ranks]

    def prepare(self, learners: Sequence[Learner], *, startup: float = 0.0, keep: bool = False) -> None:
        """Bring all ranks to where they can begin: steps and batches are the learners', from their weights as they are.

        `startup`: seconds that a rank sleeps before each of its gradients. `keep`: the parameters of every step.
        """
        if self._over:
            self.close()
        if not self._ranks:
            self._ranks = [self._start(rank, port) for port in [_free_port()] for rank in range(self._world)]
        given: dict[str, np.ndarray] = {}
        for m, one in enumerate(learners):
            given[f"parameters-{m}"] = one.publish()
            given[f"ids-{m}"] = np.stack([one.ids(step) for step in range(one.steps)])
        np.savez(Path(self._folder.name) / "given.npz", **given)
        self._tell({"startup": startup, "keep": keep, "folder": self._folder.name})
        for rank in self._ranks:
            assert _said(rank) == "ready", f"rank {rank.pid} did not become ready"

    def train(self, seconds: float = float("inf")) -> Trained | None:
        """To the last step. None if it takes more than so many seconds: then the ranks are ended."""
        limit = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._end)
        limit.start()
        self._tell("go")
        said = _said(self._ranks[0])
        limit.cancel()
        limit.join()
        if said is None:
            assert self._over, "a rank has failed"
            return None
        path = Path(self._folder.name) / "kept.npz"
        with np.load(path) as kept:
            parameters = [kept[name] for name in kept.files]
        return Trained([Step(*one) for one in said["steps"]], parameters, said["peak"])

    def close(self) -> None:
        self._end()
        for rank in self._ranks:
            rank.wait()
        self._ranks, self._over = [], False

    def _end(self) -> None:
        self._over = True
        for rank in self._ranks:
            rank.kill()

    def _start(self, rank: int, port: int) -> subprocess.Popen[str]:
        store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(self._world)}
        own = {"RANK": str(rank), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, __file__, self._models]
        env = os.environ | store | own
        return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _tell(self, order: Any) -> None:
        for rank in self._ranks:
            assert rank.stdin is not None
            rank.stdin.write(json.dumps(order) + "\n")
            rank.stdin.flush()


SAID = "said "  # begins a line that is meant for us: gloo writes lines of its own


def _said(rank: subprocess.Popen[str]) -> Any:
    """None when the rank has ended."""
    assert rank.stdout is not None
    own = next((line for line in rank.stdout if line.startswith(SAID)), None)
    return None if own is None else json.loads(own.removeprefix(SAID))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def peak() -> int:
    """Bytes of the largest resident set of this process, shared memory included. (ru_maxrss would count its parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def rank() -> None:
    """One process of the group, until its standard input ends."""
    import torch
    import torch.distributed as dist

    from distseq.gradients.data import open_data

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    configs = [LearnerConfig(**one) for one in json.loads(sys.argv[1])]
    data = [open_data(one.data, one.data_args) for one in configs]
    orders = map(json.loads, sys.stdin)
    for order in orders:
        folder = Path(order["folder"])
        given = dict(np.load(folder / "given.npz"))
        models = [Model(one, d, given, m) for m, (one, d) in enumerate(zip(configs, data, strict=True))]
        dist.barrier()
        print(f'{SAID}"ready"', flush=True)
        assert next(orders) == "go", "a rank is told to go when it is ready"
        steps, kept, begun = list[Step](), dict[str, np.ndarray](), time.monotonic()
        for step in range(max(len(model.ids) for model in models)):
            for m, model in enumerate(models):
                if step == len(model.ids):
                    continue
                time.sleep(order["startup"])
                model.step(step)
                steps.append(Step(m, step, time.monotonic() - begun))
                if order["keep"] and dist.get_rank() == 0:
                    kept[str(len(steps))] = model.parameters()
        if dist.get_rank() == 0:
            np.savez(folder / "kept.npz", **kept)
            print(SAID + json.dumps({"steps": steps, "peak": peak()}), flush=True)
    dist.destroy_process_group()


class Model:
    """A model of this rank, from given weights, and all that trains it."""

    def __init__(self, one: LearnerConfig, data: Any, given: dict[str, np.ndarray], m: int) -> None:
        import torch
        from torch.nn.parallel import DistributedDataParallel

        from distseq.gradients.problem import build_model, trained
        from distseq.learners.optimizers.by_name import torch_optimizer

        class Losses(torch.nn.Module):
            def __init__(self, model: torch.nn.Module) -> None:
                super().__init__()
                self.model = model

            def forward(self, batch: Any) -> torch.Tensor:
                losses: torch.Tensor = self.model.per_sample_loss(batch)  # type: ignore[operator]
                return losses.sum()

        assert (one.schedule, one.accumulate, one.ema) == (None, 1, None), f"{one.name}: not written for these"
        model = build_model(one.model, one.model_args, 0, torch.float32)
        self._parameters = trained(model)
        torch.nn.utils.vector_to_parameters(torch.from_numpy(given[f"parameters-{m}"]), self._parameters)
        self._optimizer = torch_optimizer(one.optimizer, one.optimizer_args, model, one.groups)
        self._losses, self._data, self._clip = DistributedDataParallel(Losses(model)), data, one.clip
        self.ids = given[f"ids-{m}"]

    def step(self, step: int) -> None:
        import torch
        import torch.distributed as dist

        ids, world = self.ids[step], dist.get_world_size()
        self._optimizer.zero_grad()
        # The gradients of all ranks are averaged: sums of losses become the mean over the batch by this.
        (self._losses(self._data.batch(ids[dist.get_rank() :: world])) * (world / len(ids))).backward()
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimizer.step()

    def parameters(self) -> np.ndarray:
        """(P,) copy."""
        import torch

        flat: np.ndarray = torch.cat([p.detach().flatten() for p in self._parameters]).numpy()
        return flat


if __name__ == "__main__":
    rank()
