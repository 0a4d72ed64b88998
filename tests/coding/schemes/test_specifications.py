"""Specifications: `parse(scheme.spec, n)` gives the scheme back, and what is wrong is refused in one line."""

import pytest
from hypothesis import given

from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.registry import SCHEMES, Entry, parse
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.sr_sgc import SRSGC
from tests.coding.strategies import PROPERTY, schemes


@PROPERTY
@given(scheme=schemes())
def test_a_scheme_is_read_back_from_its_specification(scheme: Scheme) -> None:
    assert parse(scheme.spec, scheme.n) == scheme
    assert parse(f"  {scheme.spec} ", scheme.n).spec == scheme.spec


def test_uncoded_training_under_another_code_is_read_back_too() -> None:
    scheme = parse("gc:0,code=cyclic", 4)
    assert parse(scheme.spec, 4) == scheme


@pytest.mark.parametrize("entry", SCHEMES.values(), ids=SCHEMES)
def test_the_example_of_each_scheme_is_its_specification(entry: Entry) -> None:
    assert parse(entry.example, 256).spec == entry.example


def test_a_specification_names_all_that_a_scheme_is_made_of() -> None:
    assert parse("uncoded", 5) == GC(5, 0)
    assert parse("gc:3", 8) == GC(8, 3)
    assert parse("gc:3,q=4,code=cyclic", 8) == parse("gc:3, code=cyclic, q=4", 8) == GC(8, 3, 4, "cyclic")
    assert parse("srsgc:2,3,5", 8) == SRSGC(8, 2, 3, 5)
    assert parse("msgc:1,2,4,code=cyclic", 8) == MSGC(8, 1, 2, 4, "cyclic")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("foo:1", "unknown scheme 'foo'; known: uncoded, gc:3,q=4,code=cyclic, srsgc:2,3,23, msgc:1,2,27"),
        ("", "unknown scheme ''"),
        ("gc", "'gc': gc takes s, as in"),
        ("gc:", "gc takes s, as in"),
        ("gc:1,2", "'gc:1,2': gc takes s, as in"),
        ("msgc:1,2", "msgc takes B,W,lam, as in 'msgc:1,2,27'"),
        ("srsgc:1,2,3,4", "srsgc takes B,W,lam, as in 'srsgc:2,3,23'"),
        ("uncoded:3", "uncoded takes no values"),
        ("uncoded:code=fr", "uncoded has no option 'code'; known: none"),
        ("gc:1,p=2", "'gc:1,p=2': gc has no option 'p'; known: q, code"),
        ("gc:1,s=2", "gc has no option 's'"),
        ("gc:1,n=2", "gc has no option 'n'"),
        ("msgc:1,2,3,q=2", "msgc has no option 'q'; known: code"),
        ("gc:x", "'gc:x': 'x' is not a whole number"),
        ("gc:1.5", "'1.5' is not a whole number"),
        ("gc:1,q=two", "'two' is not a whole number"),
        ("gc:1,code=raptor", "unknown code 'raptor'; known: fr, cyclic"),
        ("gc:8", r"needs 0 <= s < n: got n=8, s=8"),
        ("gc:-1", r"needs 0 <= s < n: got n=8, s=-1"),
        ("gc:1,q=0", "needs q >= 1 groups: got q=0"),
        ("srsgc:2,4,3", r"SR-SGC needs B to divide W - 1: got B=2, W=4"),
        ("srsgc:0,2,3", r"SR-SGC needs B to divide W - 1: got B=0, W=2"),
        ("srsgc:1,1,3", r"SR-SGC needs B to divide W - 1: got B=1, W=1"),
        ("srsgc:1,2,0", "SR-SGC needs 0 < lam <= n: got lam=0, n=8"),
        ("srsgc:1,2,9", "SR-SGC needs 0 < lam <= n: got lam=9, n=8"),
        ("srsgc:1,2,-3", "SR-SGC needs 0 < lam <= n: got lam=-3, n=8"),
        ("msgc:2,2,3", "M-SGC needs 0 < B < W: got B=2, W=2"),
        ("msgc:0,2,3", "M-SGC needs 0 < B < W: got B=0, W=2"),
        ("msgc:-1,2,3", "M-SGC needs 0 < B < W: got B=-1, W=2"),
        ("msgc:1,2,9", "M-SGC needs 0 <= lam <= n: got lam=9, n=8"),
        ("msgc:1,2,-1", "M-SGC needs 0 <= lam <= n: got lam=-1, n=8"),
        ("ksync:0", "ksync needs 1 <= K <= n: got K=0, n=8"),
        ("ksync:9", "ksync needs 1 <= K <= n: got K=9, n=8"),
    ],
)
def test_a_wrong_specification_is_refused_naming_rule_and_value(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(spec, 8)


@pytest.mark.parametrize("spec", ["uncoded", "gc:0", "msgc:1,2,0"])
def test_no_scheme_has_no_workers(spec: str) -> None:
    with pytest.raises(ValueError, match="n >= 1 workers: got n=0"):
        parse(spec, 0)
