"""What an import string names is called only if it makes what it should, and nothing else runs."""

import sys
from pathlib import Path

import pytest

from distseq.coding.factory import load_factory
from distseq.coding.import_string import load_object

OWN = """
import functools, os
from os import system
from subprocess import run
from builtins import exec as execute
from shutil import rmtree
from concurrent.futures import ThreadPoolExecutor

class Kind:
    pass

class Below(Kind):
    pass

class Other:
    pass

def build(width=1):
    return Below()

def annotated() -> "Below":
    return Below()

small = functools.partial(build, width=2)
cached = functools.lru_cache(build)
removes = functools.partial(rmtree, "/nowhere")
short = lambda: Below()
instance = Below()
"""
INSTALLED = """
from own_kinds import Kind, Below
def said() -> Below: ...
def quoted() -> "Below": ...
def unsaid(): ...
def other() -> dict: ...
def broken() -> "Gone": ...
class Derived(Kind): ...
class Foreign: ...
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_kinds.py").write_text(OWN)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "installed_kinds.py").write_text(INSTALLED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    for name in ("own_kinds", "installed_kinds"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def is_kind(one: type) -> bool:
    return any(base.__name__ == "Kind" for base in one.__mro__)


@pytest.mark.parametrize(
    "target",
    [
        *(f"own_kinds:{name}" for name in ("Kind", "Below", "build", "annotated", "small", "cached")),
        *(f"installed_kinds:{name}" for name in ("Derived", "Below", "said", "quoted")),
    ],
)
def test_what_makes_one_is_taken(target: str) -> None:
    assert load_factory(target, "thing", is_kind, "Kind") is load_object(target)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("os:system", "os is a module of the standard library"),
        ("os.path:join", "os.path is a module of the standard library"),
        ("subprocess:run", "subprocess is a module of the standard library"),
        ("builtins:exec", "builtins is a module of the standard library"),
        ("posix:system", "posix is a module of the standard library"),
        ("antigravity:webbrowser", "antigravity is a module of the standard library"),
        ("own_kinds:os", "it names a module"),
        ("own_kinds:system", "it names the built-in function system"),
        ("own_kinds:execute", "it names the built-in function exec"),
        ("own_kinds:run", "it names the function run of module subprocess, which is not your own code"),
        ("own_kinds:removes", "it names the function rmtree of module shutil, which is not your own code"),
        ("own_kinds:ThreadPoolExecutor", "it names the class ThreadPoolExecutor, which is no Kind"),
        ("own_kinds:Other", "it names the class Other, which is no Kind"),
        ("own_kinds:short", "it names a lambda"),
        ("own_kinds:instance", "it names an object of type Below"),
        ("own_kinds:__name__", "it names an object of type str"),
        ("installed_kinds:unsaid", "it names the function unsaid of module installed_kinds, which is not your own"),
        ("installed_kinds:other", "it names the function other of module installed_kinds, which is not your own code"),
        ("installed_kinds:broken", "it names the function broken of module installed_kinds, which is not your own"),
        ("installed_kinds:Foreign", "it names the class Foreign, which is no Kind"),
        ("numpy:load", "it names "),
        ("distseq.coding.import_string:load_object", "it names the function load_object of module distseq.coding"),
    ],
)
def test_what_makes_none_is_refused_before_it_is_called(target: str, why: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared
        load_factory(target, "thing", is_kind, "Kind")
    message = str(error.value)
    assert message.startswith(f"thing {target!r} is refused, and nothing was called: {why}"), message
    assert message.endswith("or by an installed one that is annotated to return such a class")
    assert "\n" not in message


def test_a_module_of_the_standard_library_is_not_even_imported() -> None:
    sys.modules.pop("this", None)
    with pytest.raises(ValueError, match="this is a module of the standard library"):
        load_factory("this:s", "thing", is_kind, "Kind")
    assert "this" not in sys.modules


def test_any_class_of_the_users_own_may_be_allowed() -> None:
    assert load_factory("own_kinds:Other", "thing", is_kind, "Kind", own_classes=True).__name__ == "Other"
    with pytest.raises(ValueError, match="ThreadPoolExecutor, which is no Kind"):
        load_factory("own_kinds:ThreadPoolExecutor", "thing", is_kind, "Kind", own_classes=True)
    with pytest.raises(ValueError, match="Foreign, which is no Kind"):
        load_factory("installed_kinds:Foreign", "thing", is_kind, "Kind", own_classes=True)
