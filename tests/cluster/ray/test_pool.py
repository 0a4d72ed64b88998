"""What only Ray has: what an actor occupies, its name, and the metrics of a run."""

import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from distseq.cluster.pool import Payload
from distseq.cluster.ray.pool import ray_pool
from distseq.cluster.ray.resources import HostResources
from distseq.cluster.ray.transport import Hosting, _cause
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

PROBE = WorkSpec("distseq.cluster.probe:Probe", '{"size": 4}')


@pytest.mark.parametrize(
    ("needs", "node", "room"),
    [
        (HostResources(), {"CPU": 3.0, "GPU": 1.0}, 3),
        (HostResources(cpus=0.1), {"CPU": 0.3}, 3),
        (HostResources(cpus=2), {"CPU": 3.0}, 1),
        (HostResources(cpus=1, gpus=0.5), {"CPU": 8.0, "GPU": 1.0}, 2),
        (HostResources(gpus=1), {"CPU": 8.0}, 0),
        (HostResources(cpus=0, resources={"slot": 2}), {"CPU": 1.0, "slot": 7.0}, 3),
    ],
)
def test_a_node_has_room_for_what_its_scarcest_resource_allows(
    needs: HostResources, node: dict[str, float], room: int
) -> None:
    assert needs.room(node) == room


@pytest.mark.parametrize("amounts", [{"cpus": -1}, {"cpus": 0}, {"resources": {"slot": -2.0}}, {"gpus": float("nan")}])
def test_amounts_that_make_no_sense_are_refused(amounts: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a host.s resources must be >= 0"):
        HostResources(**amounts)  # type: ignore[arg-type]


def test_the_cause_of_a_death_is_told_without_tables_and_logs() -> None:
    error = RuntimeError("The actor died.\n\tclass_name: Host\n\nThe node has died.\n[state-dump] NodeManager\n  more")
    assert _cause(error) == "The actor died. The node has died."


@pytest.fixture
def small(ray_session: None) -> Iterator[Callable[..., object]]:
    made = []

    def make(**options: object) -> object:
        made.append(ray_pool(2, PROBE, hosts=1, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.mark.ray
def test_an_actor_occupies_what_it_needs_and_has_a_name(small: Callable[..., object]) -> None:
    import ray
    from ray.util import list_named_actors

    small(hosting=Hosting(HostResources(cpus=2.5)))
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"] - 2.5
    assert any(name.startswith("distseq-") and "-host-0-" in name for name in list_named_actors())


@pytest.mark.ray
def test_what_no_node_has_is_refused_by_its_name(ray_session: None) -> None:
    with pytest.raises(ValueError, match="1 hosts of 1 CPU, 3 moonrock do not fit: the cluster has room for 0"):
        ray_pool(2, PROBE, hosts=1, hosting=Hosting(HostResources(resources={"moonrock": 3})))


@pytest.mark.ray
def test_figures_are_among_the_metrics_of_ray(small: Callable[..., object]) -> None:
    import ray

    from distseq.cluster.ray.metrics import RunMeter

    pool = small()
    pool.publish(0, Payload(0, 0, 0, np.zeros(0), np.arange(6), 0, "uncoded", 2))  # type: ignore[attr-defined]
    pool.send([MiniTask(0, 0, 0), MiniTask(0, 0, 1)])  # type: ignore[attr-defined]
    meter = RunMeter()
    meter.job("a", 1.5)
    meter.round(0.2, True, 3)
    node = ray.nodes()[0]
    wanted = {
        "ray_distseq_jobs_total{",
        "ray_distseq_loss{",
        "ray_distseq_round_seconds_bucket{",
        "ray_distseq_rows_total{",
    }
    end = pool.now() + 60  # type: ignore[attr-defined]
    while wanted and pool.now() < end:  # type: ignore[attr-defined]
        pool.poll(pool.now() + 1)  # type: ignore[attr-defined]
        with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as page:
            text = page.read().decode()
        wanted = {name for name in wanted if name not in text}
    assert not wanted
