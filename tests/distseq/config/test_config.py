"""The job file: what is written reads back, and every mistake is named in one line."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distseq.config.overrides import KINDS, OPTIONS, override
from distseq.config.schema import DTYPES, POOLS, Config, LearnerConfig, PoolConfig, RunConfig, SchedulerConfig
from distseq.config.toml_file import from_dict, load_config, to_toml
from tests.coding.strategies import PROPERTY

ROOT = Path(__file__).resolve().parents[3]
LEARNER = {"name": "a", "model": "m:M", "data": "text:x", "batch": 4}
WHOLE = {"learner": [LEARNER]}

awkward = st.sampled_from(
    ["", '"', "\\", "\n\t\r\b\f", "\x00\x1f\x7f", "é", "\u2028", "\ufffe", "😀", "# x", "''", '"""']
)
texts = awkward | st.text()
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
values = st.recursive(
    texts | numbers | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(texts, values, max_size=3)
learners = st.builds(
    LearnerConfig,
    name=names,
    model=texts,
    data=texts,
    batch=st.integers(),
    model_args=arguments,
    data_args=arguments,
    evaluation=st.none() | texts,
    evaluation_args=arguments,
    optimizer=texts,
    optimizer_args=arguments,
    schedule=st.none() | texts,
    schedule_args=arguments,
    clip=st.none() | st.floats(allow_nan=False),
    steps=st.none() | st.integers(),
)
configs = st.builds(
    Config,
    st.lists(learners, min_size=1, max_size=3, unique_by=lambda one: one.name).map(tuple),
    st.builds(
        RunConfig, steps=st.integers(1), seed=st.integers(0), checks=st.integers(0), dtype=st.sampled_from(DTYPES)
    ),
    st.builds(
        PoolConfig,
        kind=st.sampled_from(POOLS),
        workers=st.integers(1),
        hosts=st.none() | st.integers(),
        address=texts,
        delays=texts,
        unfinished=texts,
        compute=texts,
    ),
    st.builds(
        SchedulerConfig,
        scheme=texts,
        closing=texts,
        cutoff=st.floats(allow_nan=False),
        mu=st.floats(allow_nan=False),
    ),
)


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
        (WHOLE | {"polo": {}}, "unknown key 'polo' in the job file; nearest: pool"),
        (WHOLE | {"run": {"step": 3}}, "unknown key 'step' in [run]; nearest: steps"),
        (WHOLE | {"pool": {"worker": 3}}, "unknown key 'worker' in [pool]; nearest: workers"),
        (WHOLE | {"scheduler": {"shceme": "gc:1"}}, "unknown key 'shceme' in [scheduler]; nearest: scheme"),
        (WHOLE | {"defaults": {"bach": 3}}, "unknown key 'bach' in [defaults]; nearest: batch"),
        ({"learner": [LEARNER | {"optimiser": "sgd"}]}, "unknown key 'optimiser' in [[learner]]; nearest: optimizer"),
        (WHOLE | {"run": {"zzzzzz": 3}}, "unknown key 'zzzzzz' in [run]; nearest: "),
        (WHOLE | {"run": {"a\nb": 3}}, "unknown key 'a\\nb' in [run]; nearest: "),
        (WHOLE | {"run": {"steps": "3"}}, "steps in [run] must be int: got '3'"),
        (WHOLE | {"run": {"steps": 3.0}}, "steps in [run] must be int: got 3.0"),
        (WHOLE | {"run": {"steps": True}}, "steps in [run] must be int: got True"),
        (WHOLE | {"pool": {"hosts": "two"}}, "hosts in [pool] must be int: got 'two'"),
        (WHOLE | {"pool": {"address": 8265}}, "address in [pool] must be str: got 8265"),
        (WHOLE | {"scheduler": {"cutoff": "0"}}, "cutoff in [scheduler] must be float: got '0'"),
        (WHOLE | {"scheduler": {"mu": False}}, "mu in [scheduler] must be float: got False"),
        ({"learner": [LEARNER | {"clip": "1"}]}, "clip in [[learner]] must be float: got '1'"),
        ({"learner": [LEARNER | {"model_args": [1]}]}, "model_args in [[learner]] must be dict: got [1]"),
        (WHOLE | {"defaults": {"batch": "4"}, "learner": [LEARNER]}, None),  # gone over by the learner's own
        (WHOLE | {"run": 3}, "[run] must be a table: got 3"),
        (WHOLE | {"pool": []}, "[pool] must be a table: got []"),
        (WHOLE | {"defaults": "x"}, "[defaults] must be a table: got 'x'"),
        ({"learner": ["x"]}, "[[learner]] must be a table: got 'x'"),
        ({"learner": LEARNER}, "learners are an array of tables: write [[learner]]"),
        *(
            ({"learner": [{k: v for k, v in LEARNER.items() if k != key}]}, f"[[learner]] needs '{key}'")
            for key in LEARNER
        ),
        ({}, "a job needs at least one [[learner]]"),
        ({"learner": []}, "a job needs at least one [[learner]]"),
        ({"learner": [LEARNER, LEARNER]}, "two learners are named 'a'"),
        *(
            (
                {"learner": [LEARNER | {"name": name}]},
                f"a learner's name must be letters, digits, '.', '_' and '-': got {name!r}",
            )
            for name in ("", "a/b", "../a", ".a", "a b", "ä", "a\n")
        ),
        (WHOLE | {"run": {"steps": 0}}, "run.steps must be at least 1: got 0"),
        (WHOLE | {"run": {"seed": -1}}, "run.seed must be at least 0: got -1"),
        (WHOLE | {"run": {"checks": -1}}, "run.checks must be at least 0: got -1"),
        (WHOLE | {"pool": {"workers": -3}}, "pool.workers must be at least 1: got -3"),
        (WHOLE | {"run": {"dtype": "float16"}}, "run.dtype must be one of float32, float64: got 'float16'"),
        (WHOLE | {"pool": {"device": "tpu"}}, "pool.device must be one of cpu, cuda, auto: got 'tpu'"),
        (WHOLE | {"pool": {"kind": "lambda"}}, "pool.kind must be one of ray, local, simulated: got 'lambda'"),
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
        (b"", ": a job needs at least one [[learner]]"),
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
    with pytest.raises(ValueError, match=r"cannot read job file .*gone\.toml: No such file or directory"):
        load_config(tmp_path / "gone.toml")
    with pytest.raises(ValueError, match=r"cannot read job file .*: Is a directory"):
        load_config(tmp_path)


def test_options_replace_keys_of_the_job_and_none_keeps_them() -> None:
    config = from_dict({"learner": [LEARNER | {"steps": 9}, LEARNER | {"name": "b"}], "run": {"seed": 4}})
    assert override(config, dict.fromkeys(OPTIONS)) == config
    changed = override(config, {"steps": 2, "scheme": "uncoded", "pool": "simulated", "workers": 3, "cutoff": 0.5})
    assert (changed.run.steps, changed.run.seed) == (2, 4)
    assert [one.steps for one in changed.learner] == [None, None], "steps hold for every learner"
    assert (changed.pool.kind, changed.pool.workers) == ("simulated", 3)
    assert (changed.scheduler.scheme, changed.scheduler.cutoff) == ("uncoded", 0.5)
    pipelined = override(changed, {"scheduler": "pipeline", "parts": 3})
    assert (pipelined.scheduler.kind, pipelined.scheduler.parts) == ("pipeline", 3)
    assert override(pipelined, {"scheme": "gc:1"}).scheduler.kind == "rounds", "a scheme means rounds"


def test_a_job_is_scheduled_adaptively_unless_it_names_a_scheme() -> None:
    kinds = {"": "auto", "gc:3": "rounds"}
    for scheme, kind in kinds.items():
        table = {"scheduler": {"scheme": scheme}} if scheme else {}
        assert from_dict(WHOLE | table).scheduler.kind == kind
    assert from_dict(WHOLE | {"scheduler": {"kind": "rounds"}}).scheduler.scheme == "gc:1"


def test_every_option_is_a_key_of_the_job() -> None:
    for option, (table, key) in OPTIONS.items():
        kind = KINDS.get(option, ("rounds",))[0]
        config = override(from_dict(WHOLE), {"scheduler": kind})
        value = getattr(getattr(config, table), key)
        assert override(config, {option: value}) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 3}, "train has no option 'speed'; known: steps, "),
        ({"workers": 0}, "pool.workers must be at least 1: got 0"),
        ({"steps": -1}, "run.steps must be at least 1: got -1"),
        ({"pool": "lambda"}, "pool.kind must be one of ray, local, simulated: got 'lambda'"),
        ({"scheduler": "queue"}, "scheduler.kind must be one of auto, rounds, pipeline: got 'queue'"),
        ({"scheduler": "pipeline", "parts": 0}, "scheduler.parts must be at least 1: got 0"),
        ({"parts": 2}, "parts is an option of scheduler='pipeline': got scheduler='auto'"),
        ({"scheme": "gc:1", "copies": 2}, "copies is an option of scheduler='pipeline': got scheduler='rounds'"),
        (
            {"scheme": "gc:1", "places": 2},
            "places is an option of scheduler='pipeline' or 'auto': got scheduler='rounds'",
        ),
        (
            {"scheduler": "pipeline", "objective": "price"},
            "objective is an option of scheduler='auto': got scheduler='pipeline'",
        ),
        ({"scheduler": "pipeline", "mu": 1.0}, "mu is an option of scheduler='rounds': got scheduler='pipeline'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        override(from_dict(WHOLE), options)
    assert str(error.value).startswith(message)


def test_arguments_that_workers_could_not_be_sent_are_refused(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        '[[learner]]\nname = "a"\nmodel = "m:M"\ndata = "d:D"\nbatch = 1\nmodel_args = { day = 2020-01-01 }\n'
    )
    with pytest.raises(ValueError, match=r"model_args in \[\[learner\]\] must hold text, numbers"):
        load_config(job)
