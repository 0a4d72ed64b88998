"""A small job of three learners, and the weights that it ends with where nothing breaks it off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distseq.artifacts.crashing import JOB, train, weights


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("".join(f"{k} green bottles hanging on the wall, and {k * k} more.\n" for k in range(90)))
    return path


@pytest.fixture
def job(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(JOB.replace("TEXT", str(data)))
    return path


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Callable[..., list[np.ndarray]]:
    """Weights of runs without a break, each made once."""
    made: dict[str, list[np.ndarray]] = {}
    folder = tmp_path_factory.mktemp("whole")
    (folder / "job.toml").write_text(JOB.replace("TEXT", str(data)))

    def weights_of(**options: Any) -> list[np.ndarray]:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = weights(train(folder / "job.toml", out=folder / f"run-{len(made)}", **options)[0])
        return made[key]

    return weights_of
