"""The config file: what is written reads back, and every mistake is named in one line."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from distseq.config.schema import Config, LearnerConfig, PoolConfig
from distseq.config.toml_file import from_dict, load_config, to_toml
from tests.coding.strategies import PROPERTY
from tests.distseq.config.configs import LEARNER, WHOLE, configs

ROOT = Path(__file__).resolve().parents[3]


@settings(PROPERTY, max_examples=80)
@given(config=configs)
def test_a_configuration_reads_back_equal(config: Config) -> None:
    assert from_dict(tomllib.loads(to_toml(config))) == config


def test_numbers_that_are_none_read_back_too() -> None:
    config = from_dict(WHOLE | {"scheduler": {"cutoff": math.inf, "mu": math.nan}})
    again = from_dict(tomllib.loads(to_toml(config)))
    assert again.scheduler.cutoff == math.inf
    assert math.isnan(again.scheduler.mu)


def test_a_configuration_reads_back_from_a_file(tmp_path: Path) -> None:
    config = from_dict({"learner": [LEARNER | {"data": "text:ü 😀", "model_args": {"a b": ["\x7f"]}}]})
    (tmp_path / "job.toml").write_bytes(to_toml(config).encode())
    assert load_config(tmp_path / "job.toml") == config


def test_the_example_trains_four_learners_under_defaults_of_their_own() -> None:
    config = load_config(ROOT / "examples" / "main.toml")
    assert [one.name for one in config.learner] == ["s3", "lambda", "sqs", "dynamodb"]
    assert [one.data for one in config.learner] == [f"aws:{one.name}" for one in config.learner]
    shared = tomllib.loads((ROOT / "examples" / "main.toml").read_text())["defaults"]
    for one in config.learner:
        assert {key: getattr(one, key) for key in shared} == shared
    assert (config.pool.kind, config.pool.workers) == ("ray", 8)
    assert from_dict(tomllib.loads(to_toml(config))) == config


def test_a_learner_s_own_keys_go_over_the_defaults() -> None:
    own = [{"name": "a"}, {"name": "b", "batch": 2, "steps": 7}]
    config = from_dict({"defaults": {"model": "m:M", "data": "x", "batch": 8, "clip": 1}, "learner": own})
    assert [(one.name, one.batch, one.steps, one.clip) for one in config.learner] == [
        ("a", 8, None, 1.0),
        ("b", 2, 7, 1.0),
    ]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (WHOLE | {"polo": {}}, "unknown key 'polo' in the config file; nearest: pool"),
        (WHOLE | {"run": {"step": 3}}, "unknown key 'step' in [run]; nearest: steps"),
        (WHOLE | {"pool": {"worker": 3}}, "unknown key 'worker' in [pool]; nearest: workers"),
        (WHOLE | {"scheduler": {"shceme": "gc:1"}}, "unknown key 'shceme' in [scheduler]; nearest: scheme"),
        (WHOLE | {"defaults": {"bach": 3}}, "unknown key 'bach' in [defaults]; nearest: batch"),
        (
            {"learner": [LEARNER | {"optimiser": "sgd"}]},
            "unknown key 'optimiser' in [[learner]] 'a'; nearest: optimizer",
        ),
        (WHOLE | {"run": {"zzzzzz": 3}}, "unknown key 'zzzzzz' in [run]; nearest: "),
        (WHOLE | {"run": {"a\nb": 3}}, "unknown key 'a\\nb' in [run]; nearest: "),
        (WHOLE | {"run": {"steps": "3"}}, "steps in [run] must be an integer: got '3'"),
        (WHOLE | {"run": {"steps": 3.0}}, "steps in [run] must be an integer: got 3.0"),
        (WHOLE | {"run": {"steps": True}}, "steps in [run] must be an integer: got True"),
        (WHOLE | {"pool": {"hosts": "two"}}, "hosts in [pool] must be an integer: got 'two'"),
        (WHOLE | {"pool": {"address": 8265}}, "address in [pool] must be a string: got 8265"),
        (WHOLE | {"scheduler": {"cutoff": "0"}}, "cutoff in [scheduler] must be a number: got '0'"),
        (WHOLE | {"scheduler": {"mu": False}}, "mu in [scheduler] must be a number: got False"),
        ({"learner": [LEARNER | {"clip": "1"}]}, "clip in [[learner]] 'a' must be a number: got '1'"),
        ({"learner": [LEARNER | {"model_args": [1]}]}, "model_args in [[learner]] 'a' must be a table: got [1]"),
        (WHOLE | {"defaults": {"batch": "4"}, "learner": [LEARNER]}, None),  # gone over by the learner's own
        (WHOLE | {"run": 3}, "run in the config file must be a table: got 3"),
        (WHOLE | {"pool": []}, "pool in the config file must be a table: got []"),
        (WHOLE | {"defaults": "x"}, "defaults in the config file must be a table: got 'x'"),
        ({"learner": ["x"]}, "learner[0] in the config file must be a table: got 'x'"),
        (
            {"learner": LEARNER},
            "learner in the config file must be an array of tables, such as [[learner]]: got {'name': 'a', ",
        ),
        *(
            ({"learner": [{k: v for k, v in LEARNER.items() if k != key}]}, f"{place} needs '{key}'")
            for key in LEARNER
            for place in ["[[learner]]" if key == "name" else "[[learner]] 'a'"]
        ),
        ({}, "a config file needs at least one [[learner]]"),
        ({"learner": []}, "a config file needs at least one [[learner]]"),
        ({"learner": [LEARNER, LEARNER]}, "two learners are named 'a'"),
        *(
            (
                {"learner": [LEARNER | {"name": name}]},
                f"name in [[learner]] {name!r} must be letters, digits, '.', '_' and '-', the first a letter or a digit: "
                f"got {name!r}",
            )
            for name in ("", "a/b", "../a", ".a", "a b", "ä", "a\n")
        ),
        (WHOLE | {"run": {"steps": 0}}, "steps in [run] must be at least 1: got 0"),
        (WHOLE | {"run": {"seed": -1}}, "seed in [run] must be at least 0: got -1"),
        (WHOLE | {"run": {"checks": -1}}, "checks in [run] must be at least 0: got -1"),
        (WHOLE | {"pool": {"workers": -3}}, "workers in [pool] must be at least 1: got -3"),
        (WHOLE | {"run": {"dtype": "float16"}}, "dtype in [run] must be 'float32' or 'float64': got 'float16'"),
        (WHOLE | {"pool": {"device": "tpu"}}, "device in [pool] must be 'cpu', 'cuda' or 'auto': got 'tpu'"),
        (WHOLE | {"pool": {"kind": "lambda"}}, "kind in [pool] must be 'ray', 'local' or 'simulated': got 'lambda'"),
        (WHOLE | {"pool": {"prefetch": 1}}, "prefetch in [pool] must be true or false: got 1"),
        (WHOLE | {"scheduler": {"closing": "soon"}}, "closing in [scheduler] must be 'safe' or 'mu': got 'soon'"),
        (
            {"learner": [LEARNER | {"groups": ["bias"]}]},
            "groups[0] in [[learner]] 'a' must be a table: got 'bias'",
        ),
        (
            {"learner": [LEARNER | {"groups": {"match": "bias"}}]},
            "groups in [[learner]] 'a' must be an array of tables, such as [[learner]]: got {'match': 'bias'}",
        ),
        ({"learner": [LEARNER | {"accumulate": 0}]}, "accumulate in [[learner]] 'a' must be at least 1: got 0"),
        ({"learner": [{**LEARNER, "bach": 3, "batch": "4"}]}, "unknown key 'bach' in [[learner]] 'a'; nearest: batch"),
        (
            {"learner": [LEARNER | {"model_args": {"width": None}}]},
            "model_args in [[learner]] 'a' must hold text, numbers, true or false, arrays and tables (",
        ),
        ({"learner": [LEARNER | {"data": np.zeros((2, 2))}]}, "data in [[learner]] 'a' must be a string: got array("),
    ],
)
def test_a_mistake_is_named_in_one_line(raw: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert from_dict(raw)
        return
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        from_dict(raw)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[run\nsteps = 3", "is not TOML: "),
        (b"steps = \xff", "is not TOML: "),
        (b"[run]\nsteps = 3\nsteps = 4\n", "is not TOML: "),
        (
            b"[run]\nstep = 3\n[[learner]]\nname = 'a'\nmodel = 'm'\ndata = 'x'\nbatch = 1\n",
            ": unknown key 'step' in [run]; nearest: steps",
        ),
        (b"", ": a config file needs at least one [[learner]]"),
        (b"x = " + b"[" * 5000 + b"]" * 5000, ": its tables and lists are nested too deeply"),
        (b"x = " + b"{a = " * 5000 + b"1" + b"}" * 5000, ": its tables and lists are nested too deeply"),
        # tomllib would take 100 MB for this, and hours for one that is a hundred times as long.
        (b"a." * 5000 + b"a = 1", ": a key may have at most 100 parts"),
        (b"#" * (2**24 + 1), ": a config file may have at most 16 MiB"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "job.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        load_config(path)
    assert str(error.value).removeprefix(str(path)).strip().startswith(message.strip())
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read config file .*gone\.toml: No such file or directory"):
        load_config(tmp_path / "gone.toml")
    with pytest.raises(ValueError, match=r"cannot read config file .*: Is a directory"):
        load_config(tmp_path)


def test_a_job_is_scheduled_adaptively_unless_it_names_a_scheme() -> None:
    kinds = {"": "auto", "gc:3": "rounds"}
    for scheme, kind in kinds.items():
        table = {"scheduler": {"scheme": scheme}} if scheme else {}
        assert from_dict(WHOLE | table).scheduler.kind == kind
    assert from_dict(WHOLE | {"scheduler": {"kind": "rounds"}}).scheduler.scheme == "gc:1"
    assert from_dict(WHOLE | {"scheduler": {"kind": ""}}).scheduler.kind == "auto"


def test_arguments_that_workers_could_not_be_sent_are_refused(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        '[[learner]]\nname = "a"\nmodel = "m:M"\ndata = "d:D"\nbatch = 1\nmodel_args = { day = 2020-01-01 }\n'
    )
    with pytest.raises(ValueError, match=r"model_args in \[\[learner\]\] 'a' must hold text, numbers"):
        load_config(job)


def test_a_whole_number_serves_as_a_number_and_is_read_as_one() -> None:
    config = from_dict({"learner": [LEARNER | {"clip": 1}], "pool": {"cpus": 2}})
    assert (type(config.learner[0].clip), type(config.pool.cpus)) == (float, float)


def test_a_configuration_made_in_python_obeys_the_same_rules() -> None:
    learner = LearnerConfig("a", "m:M", "text:x", 4)
    assert Config((learner,)) == from_dict(WHOLE)
    with pytest.raises(ValueError, match=r"^workers in \[pool\] must be an integer: got '8'$"):
        Config((learner,), pool=PoolConfig(workers="8"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^accumulate in \[\[learner\]\] 'a' must be at least 1: got 0$"):
        Config((replace(learner, accumulate=0),))


def test_arguments_of_python_are_written_as_toml_has_them() -> None:
    config = from_dict({"learner": [LEARNER | {"model_args": {"sizes": (1, 2), "names": {"a": {1: "x"}}}}]})
    again = from_dict(tomllib.loads(to_toml(config)))
    assert again.learner[0].model_args == {"sizes": [1, 2], "names": {"a": {"1": "x"}}}


def test_what_is_not_set_is_not_written() -> None:
    learner = tomllib.loads(to_toml(from_dict(WHOLE)))["learner"][0]
    assert learner.keys() == {*LEARNER, "optimizer", "accumulate"}


OLD = """
[run]
steps = 3
seed = 0
evaluate_every = 0
checks = 8
dtype = "float32"

[pool]
kind = "simulated"
workers = 4
address = "local"
elastic = false
cpus = 1.0
gpus = 0.0
resources = {}
delays = "none"
unfinished = "serial"
compute = "decoded"
device = "cpu"
prefetch = true
stack = 8

[scheduler]
kind = "auto"
scheme = ""
closing = "safe"
cutoff = 0.0
mu = 1.0
parts = 4
copies = 2
lanes = 1
burst = 1
places = 0
objective = "seconds"
prices = ""
inexact = false

[checkpoint]
every = 50
keep = 3

[[learner]]
name = "a"
model = "m:M"
data = "text:x"
batch = 4
model_args = {"a b" = ["\\u007f", 1.0], "deep" = {"x" = true}}
data_args = {}
evaluation_args = {}
optimizer = "adam"
optimizer_args = {"lr" = 1e-05}
groups = [{"match" = "bias$", "weight_decay" = 0.0}]
schedule_args = {}
accumulate = 1
"""


def test_a_file_in_the_run_folder_of_an_earlier_version_is_read() -> None:
    learner = LEARNER | {"model_args": {"a b": ["\x7f", 1.0], "deep": {"x": True}}, "optimizer_args": {"lr": 1e-5}}
    learner |= {"groups": [{"match": "bias$", "weight_decay": 0.0}]}
    expected = from_dict(
        {"learner": [learner], "run": {"steps": 3}, "pool": {"kind": "simulated", "workers": 4, "address": "local"}}
        | {"checkpoint": {"every": 50}}
    )
    assert from_dict(tomllib.loads(OLD)) == expected
