"""What is said of the nodes of a cluster."""

from typing import Any

import pytest

from distseq.cli.doctor import cluster
from distseq.cli.doctor.findings import Finding, Subject, examine

GiB = 1 << 30
DRIVER = {"python": "3.12.3", "ray": "2.60.0", "torch": "2.13.0", "distseq": "0.1.0"}


def said(*nodes: dict[str, Any], address: str = "auto") -> list[Finding]:
    subject = Subject(address=address)
    subject.once("nodes", lambda: {"driver": DRIVER, "nodes": list(nodes)})
    return list(examine(cluster.CHECKS, subject))


def node(name: str, **change: str | None) -> dict[str, Any]:
    return {"node": name, "cpus": 8.0, "memory": 3 * GiB, "versions": {**DRIVER, **change}}


def test_nodes_like_the_driver_are_fine() -> None:
    assert said(node("a"), node("b", python="3.12.9")) == [
        ("cluster", "ok", "auto: 2 nodes, 16 CPUs, 6 GiB for tasks"),
        ("node a", "ok", "8 CPUs, python 3.12.3, ray 2.60.0, torch 2.13.0, distseq 0.1.0"),
        ("node b", "ok", "8 CPUs, python 3.12.9, ray 2.60.0, torch 2.13.0, distseq 0.1.0"),
    ]


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        ({"python": "3.10.1"}, "error", "distseq needs Python 3.11 or newer there"),
        ({"python": "3.13.0"}, "error", "the driver has Python 3.12.3: install the same on every node"),
        ({"ray": "2.59.0"}, "error", "the driver has Ray 2.60.0: install the same on every node"),
        ({"torch": None, "scipy": None}, "error", "torch, scipy missing: install on every node what distseq needs"),
        ({"boto3": None}, "warning", "boto3 is missing, needed only for aws: data"),
        ({"torch": "2.12.0"}, "warning", "the driver has torch 2.13.0: replicas may differ in their last bits"),
        ({"distseq": None}, "warning", "distseq is missing there: install it, or use distseq submit, which brings it"),
        ({"distseq": "0.0.9"}, "warning", "the driver has distseq 0.1.0: install the same on every node"),
    ],
)
def test_a_node_that_differs_is_named(change: dict[str, str | None], level: str, text: str) -> None:
    _, found = said(node("b", **change))
    assert (found.about, found.level) == ("node b", level)
    assert found.text.endswith(f"; {text}")


def test_a_submitted_job_brings_its_distseq() -> None:
    assert said(node("b", distseq=None), address="http://head:8265")[1].level == "ok"


def test_a_node_that_does_not_answer_is_an_error() -> None:
    assert said({**node("b"), "versions": None})[1][:2] == ("node b", "error")


def test_without_an_address_there_is_nothing_to_say() -> None:
    assert list(examine(cluster.CHECKS, Subject())) == []
