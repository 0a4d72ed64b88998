"""What every test stands on: the environment, the pace of Hypothesis, the folder of shared data, and beside what it may run."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings

from tests.computing import only_computes, scheduler

if TYPE_CHECKING:
    from distseq.cluster.hosts.host_pool import HostPool

# A shell that runs the tests in the background has them ignore SIGINT, and so would the processes that they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything imports torch or ray.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# How long an example takes says more about the machine than about the code; pytest-timeout bounds the test.
settings.register_profile("distseq", parent=settings.default, deadline=None)
settings.load_profile("distseq")
# For who asks only whether a test fails: --hypothesis-profile quick-to-fail.
settings.register_profile("quick-to-fail", parent=settings.default, phases=[Phase.explicit, Phase.generate])
# All examples of every property (tests/examples.py).
settings.register_profile("thorough", parent=settings.default)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests that are named run in this process, all tests in several."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    # One more than cores: tests of pools wait half of their time, for processes to start and for scripted delays.
    return min(8, len(os.sched_getaffinity(0)) + 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over several processes slow tests come first: one that begins last would be waited for alone."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """A test that is taken to compute only and yet starts the processes of a pool fails."""
    if not only_computes(item.nodeid):
        return (yield)
    with patch.object(BaseProcess, "start", _refused):
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if only_computes(item.nodeid) and item.get_closest_marker("ray"):
        _refused()


def _refused(*_: object) -> NoReturn:
    pytest.fail("starts Ray or a pool although tests/computing.py takes it to compute only")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded traces and data sets, `shared/` beside the repository root."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        reason = f"needs the traces and data sets in {folder}, which is not there"
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(reason)
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests of a process; four logical CPUs, whatever the machine has."""
    import ray
    from ray._private.authentication_test_utils import reset_auth_token_state

    # Ray keeps the mode of authentication that the process first needed; an earlier test may have needed it without a cluster.
    reset_auth_token_state()
    # Ray's workers import from the folder it was started in, which a test that comes first may have left.
    with contextlib.chdir(Path(__file__).resolve().parents[1]):
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=256 * 1024 * 1024,
        )
    yield
    ray.shutdown()


REAL = [pytest.param("ray", marks=pytest.mark.ray), "local"]
KEPT = pytest.param(
    "ray-kept", marks=pytest.mark.ray
)  # however small a row is, it stays with its host and is added there


@pytest.fixture(scope="session", params=REAL)
def real_pool(request: pytest.FixtureRequest) -> "Callable[..., HostPool]":
    """How pools of real workers are made, each in turn: (n, work, hosts=..., delays=..., silent_after=...) -> pool."""
    return _maker(request)


@pytest.fixture(scope="session", params=[*REAL, KEPT])
def any_pool(request: pytest.FixtureRequest) -> "Callable[..., HostPool]":
    """The same, and Ray with rows that are lost with their host: for what happens to hosts."""
    return _maker(request)


def _maker(request: pytest.FixtureRequest) -> "Callable[..., HostPool]":
    if request.param == "local":
        from distseq.cluster.local.pool import local_pool

        return local_pool
    request.getfixturevalue("ray_session")
    from distseq.cluster.ray.pool import ray_pool
    from distseq.cluster.ray.transport import Hosting

    return ray_pool if request.param == "ray" else partial(ray_pool, hosting=Hosting(inline=0))
