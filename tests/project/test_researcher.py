"""A researcher's path: a scheme in a file of one's own is simulated, trains on real workers, and is found on resuming."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distseq
from distseq.coding.schemes.registry import parse
from distseq.engine.journal import read_journal

ROOT = Path(__file__).resolve().parents[2]
SCHEME = '''
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from distseq.coding.codes.gradient_code import Shortage
from distseq.coding.schemes.scheme import Scheme


@dataclass(frozen=True)
class Interleaved:
    """Fractional repetition whose replica sets are not neighbours: worker i holds part i modulo the number of parts."""

    n: int
    s: int
    amplification = 1.0

    parts = property(lambda self: self.n // (self.s + 1))
    load = property(lambda self: Fraction(1, self.parts))

    def row(self, worker):
        return ((worker % self.parts, 1.0),)

    def shortage(self, has):
        silent = [k for k in range(self.parts) if not has[k :: self.parts].any()]
        return Shortage(np.arange(self.n) % self.parts == silent[0], 1) if silent else None

    def decode(self, has):
        weights = np.zeros(self.n)
        weights[[k + self.parts * int(has[k :: self.parts].argmax()) for k in range(self.parts)]] = 1.0
        return weights


@dataclass(frozen=True)
class EveryOther(Scheme):
    s: int

    tolerance = property(lambda self: (self.s,))
    codes = property(lambda self: (Interleaved(self.n, self.s),))
'''
JOB = """
[run]
steps = 4
dtype = "float64"

[pool]
workers = 6
delays = "bursts:base=0.01"

[[learner]]
name = "a"
model = "distseq.models.char_lstm:CharLSTM"
model_args = { hidden = 6 }
data = "text:TEXT"
data_args = { window = 5 }
batch = 20
"""
SPEC = "my_code:EveryOther:2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the user has: a scheme and a config file."""
    (tmp_path / "my_code.py").write_text(SCHEME)
    (tmp_path / "job.toml").write_text(JOB.replace("TEXT", str(tmp_path / "text.txt")))
    (tmp_path / "text.txt").write_text("".join(f"{k} green bottles hanging on the wall.\n" for k in range(90)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_code", raising=False)
    return tmp_path


def trained(out: str, **options: Any) -> distseq.Result:
    return distseq.train("job.toml", out=out, **options)


def test_it_takes_at_most_60_lines() -> None:
    assert len((SCHEME + JOB).strip().splitlines()) <= 60


def test_the_specification_gives_the_scheme_back(folder: Path) -> None:
    scheme = parse(SPEC, 6)
    assert scheme.spec == SPEC
    assert parse(scheme.spec, 6) == scheme
    assert (scheme.load, scheme.delay, scheme.exact) == (parse("gc:2", 6).load, 0, True)


def test_it_is_simulated_beside_the_others(folder: Path) -> None:
    words = [sys.executable, "-m", "distseq", "simulate", "--profile", "bursts", "--workers", "12", "--jobs", "20"]
    words += ["--scheme", SPEC, "--scheme", "gc:2", "--scheme", "uncoded", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    seconds = {one["scheme"]: one["seconds_per_job"] for one in json.loads(done.stdout)}
    assert seconds[SPEC] < seconds["uncoded"]
    assert {one["family"] for one in json.loads(done.stdout)} == {"my_code:EveryOther", "gc", "uncoded"}


@pytest.mark.parametrize("pool", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_it_trains_the_same_weights_as_uncoded_and_resumes(
    folder: Path, pool: str, request: pytest.FixtureRequest
) -> None:
    if pool == "ray":
        request.getfixturevalue("ray_session")
    own = trained("own", scheme=SPEC, pool=pool, hosts=2)
    plain = trained("plain", scheme="uncoded", pool="simulated")
    (a,), (b,) = own.learners, plain.learners
    np.testing.assert_allclose(a.publish(), b.publish(), rtol=1e-9, atol=1e-12)
    assert own.summary["scheme"] == SPEC
    assert own.summary["largest_gradient_difference"] < 1e-12
    assert own.summary["replayed_seconds_per_job"][SPEC] > 0
    rounds = [record for record in read_journal(own.folder / "journal.jsonl") if record["kind"] == "round"]
    assert len(rounds) == 4
    again = distseq.train(resume="own", pool=pool)
    np.testing.assert_array_equal(again.learners[0].publish(), a.publish())
