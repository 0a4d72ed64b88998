"""Every public name resolves, and has a docstring with an example that runs."""

import doctest
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distseq
import distseq.kernels
import distseq.kernels.layers

ROOT = Path(__file__).resolve().parents[2]
# Names without an example: data, and what a run raises.
WITHOUT = {"distseq.__version__", "distseq.kernels.layers.LAYERS"}


def public() -> Iterator[str]:
    for module in (distseq, distseq.kernels, distseq.kernels.layers):
        yield from (f"{module.__name__}.{name}" for name in module.__all__)


@pytest.mark.parametrize("name", sorted(set(public()) - WITHOUT))
def test_a_public_name_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    home = sys.modules[found.__module__]
    assert found.__doc__
    (test,) = doctest.DocTestFinder(recurse=False).find(found, attribute, module=home, globs=dict(vars(home)))
    assert test.examples, f"{name} has no example"
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    failed = capsys.readouterr().out
    assert not failed, failed


def test_dir_lists_the_public_names() -> None:
    assert dir(distseq) == sorted(distseq.__all__)


def test_a_public_name_is_one_object_wherever_it_is_imported_from() -> None:
    from distseq.training.train import train

    assert distseq.train is train


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'distseq' has no attribute 'trian'"):
        distseq.trian  # noqa: B018


def test_importing_distseq_imports_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import distseq; dir(distseq); print(*set(sys.modules) - before)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name for name in answer.stdout.split() if name.startswith(("distseq.", "numpy", "torch"))} == set()
