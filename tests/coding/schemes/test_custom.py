"""Schemes of a user's own: found by module:Class, read back, checked in one line; short thanks to the defaults."""

import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.registry import family_of, parse
from tests.coding.play import decoded_on_time
from tests.coding.strategies import PROPERTY, generators

MODULE = """
from dataclasses import dataclass
from fractions import Fraction

from distseq.coding.codes.registry import make_code
from distseq.coding.schemes.scheme import Scheme


@dataclass(frozen=True)
class Plain(Scheme):
    s: int
    groups: int = 1

    tolerance = property(lambda self: (self.s,) * self.groups)


@dataclass(frozen=True)
class Named(Scheme):
    weight: float
    code: str = "fr"

    tolerance = property(lambda self: (1,))


@dataclass(frozen=True)
class Late(Plain):
    delay = 2


@dataclass(frozen=True)
class Uneven(Plain):
    shares = (Fraction(1, 3),)


@dataclass(frozen=True)
class Small(Plain):
    codes = property(lambda self: (make_code("fr", 2, 1),))


@dataclass(frozen=True)
class Liar(Plain):
    spec = "gc:1"


@dataclass(frozen=True)
class Forgetful(Plain):
    spec = property(lambda self: f"own_schemes:Forgetful:{self.s + 1}")


@dataclass(frozen=True)
class Listed(Scheme):
    sizes: list[int]

    tolerance = property(lambda self: tuple(self.sizes))


@dataclass(frozen=True)
class Abstract(Scheme):
    pass


class Other:
    pass


NUMBER = 3
"""


@pytest.fixture(autouse=True, scope="module")
def own_schemes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_schemes.py").write_text(MODULE)
    (folder / "broken_schemes.py").write_text("1 / 0\n")
    (folder / "needy_schemes.py").write_text("import not_installed_anywhere\n")
    (folder / "package").mkdir()
    (folder / "package" / "inner.py").write_text(MODULE.replace("own_schemes", "package.inner"))
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.mark.parametrize(
    "spec",
    [
        "own_schemes:Plain:2",
        "own_schemes:Plain:2,groups=3",
        "own_schemes:Named:0.5",
        "own_schemes:Named:1e-09,code=cyclic",
        "package.inner:Plain:0",
    ],
)
def test_a_specification_is_read_back(spec: str) -> None:
    scheme = parse(spec, 8)
    assert scheme.spec == spec
    assert parse(f" {spec} ", 8) == scheme
    assert family_of(spec) == spec.rpartition(":")[0]


@PROPERTY
@given(n=st.integers(1, 7), data=st.data(), groups=st.integers(1, 3), draws=generators())
def test_the_defaults_are_those_of_gradient_coding(
    n: int, data: st.DataObject, groups: int, draws: np.random.Generator
) -> None:
    s = data.draw(st.integers(0, n - 1))
    own, known = parse(f"own_schemes:Plain:{s},groups={groups}", n), GC(n, s, groups)
    for name in ("tolerance", "shares", "codes", "load", "delay", "models", "exact"):
        assert getattr(own, name) == getattr(known, name)
    assert own.within(0) is own
    assert own.on(n + 1).n == n + 1
    pattern = draws.random((5, n)) < 0.3
    assert decoded_on_time(own, pattern) == decoded_on_time(known, pattern)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gone_schemes:Plain:2", "cannot import 'gone_schemes:Plain': No module named 'gone_schemes'"),
        ("own_schemes:Plan:2", "cannot import 'own_schemes:Plan': module own_schemes has no 'Plan'"),
        ("broken_schemes:Plain:2", "cannot import 'broken_schemes:Plain': ZeroDivisionError: division by zero"),
        ("needy_schemes:Plain", "cannot import 'needy_schemes:Plain': No module named 'not_installed_anywhere'"),
        ("own_schemes:Other", "own_schemes:Other is not a subclass of distseq.coding.schemes.scheme.Scheme"),
        ("own_schemes:NUMBER", "own_schemes:NUMBER is not a subclass of"),
        ("__main__:Plain:2", "hosts cannot import __main__; put the class into a module of its own"),
        ("own_schemes:Plain", "own_schemes:Plain takes s, as in 'own_schemes:Plain:S'"),
        ("own_schemes:Plain:1,2", "own_schemes:Plain takes s, as in 'own_schemes:Plain:S'"),
        ("own_schemes:Plain:x", "'x' is not a whole number"),
        ("own_schemes:Named:x", "'x' is not a number"),
        ("own_schemes:Plain:1,size=2", "own_schemes:Plain has no option 'size'; known: groups"),
        ("own_schemes:Plain:8", "needs 0 <= s < n: got n=8, s=8"),
        ("own_schemes:Plain:1,groups=0", "needs at least one group: its tolerance is empty"),
        ("own_schemes:Listed:1", "Listed.sizes must be int, float or str to be part of a specification"),
        ("own_schemes:Abstract", "tolerance"),
        ("own_schemes:Late:1", "with a delay of 2 it must define assign, shortage, within"),
        ("own_schemes:Uneven:1", "1 groups, 1 codes and 1 shares that add up to 1/3"),
        ("own_schemes:Small:1", "needs codes for n=8 workers: got one for 2"),
        ("own_schemes:Liar:1", "its property spec must specify the same scheme: got 'gc:1'"),
        ("own_schemes:Forgetful:1", "its property spec must specify the same scheme: got 'own_schemes:Forgetful:2'"),
    ],
)
def test_what_is_wrong_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        parse(spec, 8)
    assert "\n" not in str(error.value)
