"""The grid of schemes and pipelines that selection tries."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.schemes.registry import SCHEMES, parse
from distseq.scheduling.adaptive.candidates import NOT_SPLIT, candidates, family
from distseq.scheduling.pipeline import Pipeline
from tests.coding.strategies import PROPERTY

FAMILIES = {*SCHEMES.keys() - {"ksync"}, "streamed gc", "pipeline", NOT_SPLIT}


@PROPERTY
@given(n=st.integers(1, 70), models=st.integers(1, 80), batch=st.none() | st.integers(1, 100))
def test_every_candidate_can_be_run_by_these_models_on_these_workers(n: int, models: int, batch: int | None) -> None:
    found = candidates(n, models, batch)
    assert len(set(found)) == len(found), "none is tried twice"
    assert {"uncoded", Pipeline()} <= set(found)
    for one in found:
        scheme = one.scheme(n) if isinstance(one, Pipeline) else parse(one, n)
        assert scheme.delay <= models - 1
        assert scheme.exact
        assert batch is None or one == "uncoded" or sum(code.parts for code in scheme.codes) <= batch
        assert isinstance(one, Pipeline) or one == scheme.spec
        assert not isinstance(one, Pipeline) or one.copies * one.lanes <= n, "no more copies than workers of a lane"


@pytest.mark.parametrize(("n", "most"), [(256, 100), (64, 90), (8, 50), (4, 30), (1, 4)])
def test_the_grid_is_coarse_and_small_on_few_workers(n: int, most: int) -> None:
    assert ceil(most / 2) <= len(candidates(n, 4)) <= most


def test_every_family_is_tried_and_those_with_delay_only_with_enough_models() -> None:
    assert {family(one) for one in candidates(256, 4)} == FAMILIES
    assert {family(one) for one in candidates(256, 1)} == FAMILIES - {"srsgc", "msgc", "redispatch"}


def test_the_grid_comes_near_the_best_known_on_measured_serverless_workers() -> None:
    assert {"gc:7", "gc:7,q=8", "msgc:1,2,31", "redispatch:3,copies=4", "backup:75"} <= set(candidates(256, 4))
    assert {Pipeline(16, 4), Pipeline(8, 2), Pipeline(16, 4, lanes=4)} <= set(candidates(256, 4))


@pytest.mark.parametrize(
    ("candidate", "name"),
    [
        ("uncoded", "uncoded"),
        ("gc:3", "gc"),
        ("gc:3,code=cyclic", "gc"),
        ("gc:3,q=2,code=cyclic", "streamed gc"),
        ("msgc:1,2,3", "msgc"),
        (Pipeline(2), "pipeline"),
        (Pipeline(1, 3), NOT_SPLIT),
    ],
)
def test_the_family_of_a_candidate_is_known(candidate: str | Pipeline, name: str) -> None:
    assert family(candidate) == name
