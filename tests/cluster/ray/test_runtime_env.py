"""The runtime environment of a pool's hosts: what Ray would refuse later, or ignore, is refused at once."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray")

from distseq.cluster.pool import Payload
from distseq.cluster.ray.pool import ray_pool
from distseq.cluster.ray.runtime_env import check
from distseq.cluster.ray.transport import Hosting
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

WORK = """
import os

import numpy as np


class Told:
    def row(self, payload, ids, weights):
        return np.array([float(os.environ["TOLD"])], dtype=np.float32)
"""


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"env_var": {"A": "1"}}, "^unknown key 'env_var' in runtime_env in .pool.; nearest: env_vars"),
        ({"_nsight": "default"}, "unknown key '_nsight'"),
        ({"env_vars": {"A": 1}}, "^runtime_env in .pool.: "),
        ({"env_vars": "A=1"}, "^runtime_env in .pool.: "),
        ({"pip": 3}, "^runtime_env in .pool.: "),
        ({"pip": ["a"], "conda": "b"}, "^runtime_env in .pool.: "),
        ({"working_dir": "gone"}, "working_dir 'gone' does not exist"),
        ({"working_dir": 3}, "^runtime_env in .pool.: "),
        ({"py_modules": ["gone"]}, "py_modules 'gone' does not exist"),
        ({"py_modules": "gone"}, "py_modules must be an array of paths or URIs: got 'gone'"),
        ({"config": {"setup_timeout_seconds": -3}}, "^runtime_env in .pool.: "),
    ],
)
def test_what_ray_would_refuse_or_ignore_is_one_line(env: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        check(env)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "env", [{}, {"env_vars": {"A": "1"}, "config": {"setup_timeout_seconds": 60}}, {"working_dir": "s3://a/b.zip"}]
)
def test_what_ray_takes_is_taken(env: dict[str, Any]) -> None:
    check(env)


@pytest.mark.ray
@pytest.mark.slow
def test_hosts_have_the_variables_and_the_local_modules_of_the_environment(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "told_work").mkdir()
    (tmp_path / "told_work" / "__init__.py").write_text(WORK)
    # A client of jobs, as in an earlier test of this process, leaves Ray's own store unconnected when it goes.
    store, worker = (import_module(name) for name in ("ray.experimental.internal_kv", "ray._private.worker"))
    store._initialize_internal_kv(worker.global_worker.gcs_client)
    env = {"env_vars": {"TOLD": "7"}, "py_modules": [str(tmp_path / "told_work")]}
    pool = ray_pool(1, WorkSpec("told_work:Told", "{}"), hosts=1, hosting=Hosting(runtime_env=env))
    try:
        pool.publish(0, Payload(0, 0, 0, np.zeros(0), np.arange(1), 0, "uncoded", 1))
        pool.send([MiniTask(0, 0, 0)])
        (row,) = pool.poll(pool.now() + 60) or pool.poll(pool.now() + 60)
        assert pool.collect(0, {row.task: 1.0}).tolist() == [7.0]
    finally:
        pool.close()
