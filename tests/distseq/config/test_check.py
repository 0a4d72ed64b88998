"""`check`: what says nothing to the chosen scheduler and pool, and numbers that none can have, before anything begins."""

import math
import os
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import distseq
from distseq.cli.main import cli, one_line_errors
from distseq.cluster.profiles import profile
from distseq.config.check import check
from distseq.config.keys import keys
from distseq.config.names import check_run_folder
from distseq.config.overrides import override
from distseq.config.schema import TABLES, Config, PoolConfig, RunConfig
from distseq.config.silent import check_given, without_silent
from distseq.config.toml_file import from_dict, load_config, to_toml
from distseq.engine.failures import FailedError, LearnerFailure
from distseq.learners.from_python import config_of_learners
from distseq.training.run import run
from tests.distseq.config.configs import LEARNER, WHOLE

ROOT = Path(__file__).resolve().parents[3]
SIMULATED = {"kind": "simulated"}


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared by the caller
        check(from_dict(WHOLE | raw))
    assert "\n" not in str(error.value)
    return str(error.value)


# table, key, value, what else is chosen, what the line says
SILENT = [
    ("scheduler", {"scheme": "gc:1", "mu": 3.0}, "mu in [scheduler] is an option of closing='mu': got closing='safe'"),
    (
        "scheduler",
        {"scheme": "gc:1", "closing": "mu", "cutoff": 5.0},
        "cutoff in [scheduler] is an option of closing='safe': got closing='mu'",
    ),
    ("scheduler", {"mu": 3.0}, "mu in [scheduler] is an option of scheduler='rounds': got scheduler='auto'"),
    ("scheduler", {"kind": "auto", "scheme": "gc:1"}, "scheme in [scheduler] is an option of scheduler='rounds': got "),
    ("scheduler", {"kind": "pipeline", "scheme": "gc:1"}, "scheme in [scheduler] is an option of scheduler='rounds'"),
    ("scheduler", {"parts": 3}, "parts in [scheduler] is an option of scheduler='pipeline': got scheduler='auto'"),
    ("scheduler", {"scheme": "gc:1", "lanes": 2}, "lanes in [scheduler] is an option of scheduler='pipeline': got "),
    ("scheduler", {"scheme": "gc:1", "burst": 2}, "burst in [scheduler] is an option of scheduler='pipeline': got "),
    (
        "scheduler",
        {"scheme": "gc:1", "places": 2},
        "places in [scheduler] is an option of scheduler='pipeline' or 'auto'",
    ),
    (
        "scheduler",
        {"scheme": "gc:1", "objective": "worker-seconds"},
        "objective in [scheduler] is an option of scheduler='auto': got scheduler='rounds'",
    ),
    (
        "scheduler",
        {"prices": "message=1"},
        "prices in [scheduler] is an option of objective='price': got objective='sec",
    ),
    ("scheduler", {"inexact": True}, "inexact in [scheduler] is an option of scheduler='rounds': got scheduler='auto'"),
    (
        "scheduler",
        {"scheme": "async:2", "inexact": True, "closing": "mu"},
        "closing in [scheduler] is an option of rounds, which async:2 does not have",
    ),
    ("pool", {"kind": "simulated", "hosts": 3}, "hosts in [pool] is an option of pool='ray' or 'local': got pool='sim"),
    ("pool", {"kind": "simulated", "stack": 3}, "stack in [pool] is an option of pool='ray' or 'local': got pool='sim"),
    (
        "pool",
        {"kind": "simulated", "row_timeout": 9.0},
        "row_timeout in [pool] is an option of pool='ray' or 'local': ",
    ),
    ("pool", {"kind": "simulated", "prefetch": False}, "prefetch in [pool] is an option of pool='ray' or 'local': got"),
    ("pool", {"kind": "local", "unfinished": "lost"}, "unfinished in [pool] is an option of pool='simulated': got poo"),
    ("pool", {"kind": "ray", "compute": "rows"}, "compute in [pool] is an option of pool='simulated': got pool='ray'"),
    ("pool", {"kind": "local", "address": "auto"}, "address in [pool] is an option of pool='ray': got pool='local'"),
    ("pool", {"kind": "local", "elastic": True}, "elastic in [pool] is an option of pool='ray': got pool='local'"),
    ("pool", {"kind": "local", "cpus": 2}, "cpus in [pool] is an option of pool='ray': got pool='local'"),
    ("pool", {"kind": "local", "resources": {"x": 1}}, "resources in [pool] is an option of pool='ray': got pool='loc"),
    (
        "pool",
        {"kind": "local", "runtime_env": {"pip": ["x"]}},
        "runtime_env in [pool] is an option of pool='ray': got pool='loc",
    ),
]


@pytest.mark.parametrize(("table", "own", "message"), SILENT, ids=[str(own) for _, own, _ in SILENT])
def test_a_key_that_says_nothing_is_refused(table: str, own: dict[str, Any], message: str) -> None:
    assert refusal({table: own}).startswith(message)


def test_every_other_key_that_not_all_read_is_refused_too() -> None:
    tried = {(table, key) for table, own, _ in SILENT for key in own}
    for table, kind in TABLES.items():
        for key in keys(kind):
            others = {"scheduler": "auto", "pool": "simulated", "closing": "safe", "objective": "seconds"}
            if (
                not key.meaning.option
                or (table, key.name) in tried
                or all(others[one] in known for one, known in key.meaning.readers.items())
            ):
                continue
            with pytest.raises(ValueError, match=rf"^{key.name} is an option of "):
                check_given([from_dict(WHOLE | {"pool": SIMULATED})], {key.meaning.option: 1})


@pytest.mark.parametrize(
    "scheduler", [{}, {"scheme": "gc:1"}, {"kind": "pipeline"}, {"scheme": "gc:1", "closing": "mu"}]
)
@pytest.mark.parametrize("pool", ["ray", "local", "simulated"])
def test_defaults_never_do(scheduler: dict[str, Any], pool: str) -> None:
    config = from_dict(WHOLE | {"scheduler": scheduler, "pool": {"kind": pool}})
    check(config)
    # Written out, as in a run folder, they are the same.
    check(from_dict(tomllib.loads(to_toml(config))))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.toml")), ids=lambda path: path.name)
def test_the_examples_hold(path: Path) -> None:
    check(load_config(path))


def test_an_option_that_chooses_another_way_leaves_the_settings_of_the_former_behind() -> None:
    own = {
        "scheduler": {"scheme": "gc:1", "closing": "mu", "mu": 3.0},
        "pool": {"kind": "ray", "hosts": 2, "cpus": 2.0},
    }
    config = from_dict(WHOLE | own)
    changed = override(config, {"scheduler": "pipeline", "parts": 3, "pool": "local"})
    check(changed)
    assert (changed.scheduler.scheme, changed.scheduler.mu, changed.scheduler.closing) == ("", 1.0, "safe")
    assert (changed.pool.hosts, changed.pool.cpus) == (2, 1.0)
    check(override(config, {"scheduler": "auto", "pool": "simulated"}))
    check(override(config, {"closing": "safe", "cutoff": 1.0}))
    # What said nothing before says nothing now.
    with pytest.raises(ValueError, match=r"^mu in \[scheduler\] is an option of closing='mu'"):
        check(override(from_dict(WHOLE | {"scheduler": {"scheme": "gc:1", "mu": 3.0}}), {"steps": 3}))


def test_a_run_folder_of_an_earlier_version_goes_on() -> None:
    old = from_dict(
        WHOLE | {"scheduler": {"kind": "pipeline", "scheme": "gc:1", "mu": 3.0}, "pool": SIMULATED | {"hosts": 3}}
    )
    check(without_silent(old), resumed=True)
    assert without_silent(old).scheduler.kind == "pipeline"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("scheduler", "cutoff"),
        ("scheduler", "mu"),
        ("pool", "cpus"),
        ("pool", "gpus"),
        ("pool", "row_timeout"),
        ("learner", "clip"),
        ("learner", "ema"),
    ],
)
def test_what_is_no_number_is_refused_whatever_reads_it(table: str, key: str, value: float) -> None:
    raw = {"learner": [LEARNER | {key: value}]} if table == "learner" else {table: {key: value}}
    assert key in refusal(raw)
    assert str(value).lstrip("-")[:3] in refusal(raw)


WHOLE_NUMBERS = [
    *(("run", name) for name in ("steps", "seed", "evaluate_every", "checks")),
    *(("pool", name) for name in ("workers", "hosts", "stack")),
    *(("scheduler", name) for name in ("parts", "copies", "lanes", "burst", "places")),
    *(("checkpoint", name) for name in ("every", "keep")),
    *(("learner", name) for name in ("batch", "steps", "accumulate")),
]


@pytest.mark.parametrize("value", [-1, 10**30])
@pytest.mark.parametrize(("table", "key"), WHOLE_NUMBERS)
def test_a_whole_number_out_of_range_is_refused(table: str, key: str, value: int) -> None:
    raw = {"learner": [LEARNER | {key: value}]} if table == "learner" else {table: {key: value}}
    side = "at least" if value < 0 else "at most"
    assert f"{key} in [" in refusal(raw)
    assert f" must be {side} " in refusal(raw)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"scheduler": {"places": 9}, "pool": {"workers": 4}},
            "places must be at most the number of workers: got places=9, w",
        ),
        ({"scheduler": {"kind": "pipeline", "places": 9}}, "pipeline needs places <= workers: got places=9, workers=8"),
        ({"scheduler": {"kind": "pipeline", "lanes": 9}}, "pipeline needs lanes <= workers: got lanes=9, workers=8"),
        ({"scheduler": {"kind": "pipeline", "lanes": 2, "places": 2}}, "pipeline takes places or lanes, not both"),
        ({"scheduler": {"scheme": "gc:8"}}, "an (n, s) code needs 0 <= s < n: got n=8, s=8"),
        ({"scheduler": {"scheme": "gc:1,q=999999999999"}}, "scheme 'gc:1,q=999999999999': 999999999999 is too large"),
        ({"scheduler": {"scheme": "gc:1,q=900000"}}, "gc:1,q=900000 cuts a job into 900000 parts: at most 65536"),
        (
            {"scheduler": {"scheme": "async:2,parts=99999999", "inexact": True}},
            "99999999 is too large: numbers go up to",
        ),
        ({"scheduler": {"prices": "message=nan"}}, "a price must be KEY=DOLLARS with DOLLARS >= 0"),
        ({"scheduler": {"prices": "message=-1"}}, "a price must be KEY=DOLLARS with DOLLARS >= 0"),
        ({"scheduler": {"objective": "price"}}, "objective = price needs prices"),
        ({"pool": {"workers": 2, "hosts": 3}}, "a pool needs 1 <= hosts <= workers: got workers=2, hosts=3"),
        ({"pool": {"resources": {"tpu": "many"}}}, "resources in [pool] must be finite numbers: got tpu = 'many'"),
        ({"pool": {"resources": {"tpu": math.nan}}}, "resources in [pool] must be finite numbers: got tpu = nan"),
        ({"pool": {"resources": {"tpu": -1}}}, "a host's resources must be >= 0, and one of them > 0: got {'tpu': -1}"),
        ({"pool": {"cpus": 0.0}}, "a host's resources must be >= 0, and one of them > 0"),
        ({"pool": {"delays": "storms"}}, "delays 'storms' is neither a profile ("),
        ({"pool": {"delays": "bursts:base=nan"}}, "the only option is base=SECONDS"),
        (
            {"pool": {"delays": "bursts:base=inf"}},
            "a delay profile's base must be seconds > 0, and at most 1e+06: got inf",
        ),
        ({"pool": {"delays": "bursts:base=-1"}}, "a delay profile's base must be seconds > 0"),
        ({"pool": {"delays": "bursts:base=1e300"}}, "a delay profile's base must be seconds > 0, and at most 1e+06"),
        (
            {"learner": [LEARNER | {"accumulate": 3, "steps": 10}]},
            "learner a: steps=10 is not a multiple of accumulate=3",
        ),
        ({"learner": [LEARNER | {"schedule_args": {"x": 1}}]}, "learner a: schedule_args is given, but no schedule"),
        (
            {"learner": [LEARNER | {"evaluation_args": {"x": 1}}]},
            "learner a: evaluation_args is given, but no evaluation",
        ),
    ],
)
def test_what_cannot_be_is_refused(own: dict[str, Any], message: str) -> None:
    assert message in refusal(own)


def names(*given: str, **more: Any) -> dict[str, Any]:
    return {"learner": [LEARNER | {"name": name} | more for name in given]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (names("x" * 201), "the name of learner xxxxxxxxxxxxxxxxxxxx... has 201 characters: at most 200"),
        (names("Sqs", "sqs"), "'Sqs' and 'sqs' differ only in case: many file systems hold one weights file for both"),
        (names("A", "a.ema", ema=0.5), "'A.ema' and 'a.ema' differ only in case"),
        (names("a", "A", ema=0.5), "'a' and 'A' differ only in case"),
        (names("con"), "learner con: Windows keeps this name for a device, and cannot hold its weights file"),
        (names("AUX.1"), "learner AUX.1: Windows keeps this name for a device"),
        (names("lpt9"), "learner lpt9: Windows keeps this name for a device"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(raw: dict[str, Any], message: str) -> None:
    assert refusal(raw).startswith(message)
    if "characters" not in message:
        check(from_dict(WHOLE | raw), resumed=True)


def test_a_long_name_that_fits_is_taken(tmp_path: Path) -> None:
    check(from_dict(WHOLE | names("x" * 200)))
    check_run_folder(tmp_path / "run", ["x" * 200])
    (tmp_path / f".{'x' * 200}.ema.safetensors.{2**22}.tmp").touch()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a\nb", "the path of the run folder must be printable characters: got 'a\\nb'; choose another with --out"),
        ("a\x1b[31m", "the path of the run folder must be printable characters: got 'a\\x1b[31m'"),
        ("a\0b", "the path of the run folder must be printable characters: got 'a\\x00b'"),
        ("a\udcff", "the path of the run folder is not UTF-8: got 'a\\udcff'"),
        ("x" * 300, "the run folder's 'xxxxxxxxxxxxxxxxxxxx'... has 300 bytes: at most "),
        ("/".join(["x" * 200] * 20), "bytes with its files: at most "),
    ],
)
def test_a_path_that_cannot_be_a_run_folder_is_refused(path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared
        check_run_folder(tmp_path / path if "x" * 200 in path else Path(path), ["a"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["run", "a b", "[red]x", ":smile:", "ünï", "日本", "-x", "it's", "$HOME"])
def test_other_odd_paths_are_taken(path: str, tmp_path: Path) -> None:
    check_run_folder(tmp_path / path, ["a"])
    check_run_folder(Path(path), ["a"])


def test_it_writes_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole: Config = load_config(ROOT / "examples" / "main.toml")
    before = whole
    check(replace(whole, run=replace(whole.run, seed=3)))
    assert whole == before
    assert os.listdir() == []


SIM = "simulate --profile none --workers 4 --jobs 4"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{SIM} --scheme gc:1 --mu 3", "mu is an option of closing='mu': got closing='safe'"),
        (f"{SIM} --scheme gc:1 --mu 1", "mu is an option of closing='mu': got closing='safe'"),
        (f"{SIM} --scheme gc:1 --closing mu --cutoff 5", "cutoff is an option of closing='safe': got closing='mu'"),
        (
            f"{SIM} --scheme gc:1 --objective bogus",
            "objective must be one of seconds, worker-seconds, price: got 'bogus'",
        ),
        (
            f"{SIM} --scheme gc:1 --objective seconds",
            "objective is an option of scheduler='auto': got scheduler='rounds'",
        ),
        (
            f"{SIM} --scheme gc:1 --places 2",
            "places is an option of scheduler='pipeline' or 'auto': got scheduler='rounds'",
        ),
        (f"{SIM} --closing safe", "closing is an option of scheduler='rounds': got scheduler='auto'"),
        (f"{SIM} --prices message=1", "prices is an option of objective='price': got objective='seconds'"),
        (f"{SIM} --inexact", "inexact is an option of scheduler='rounds': got scheduler='auto'"),
        (f"{SIM} --sweep --inexact", "inexact is an option of --scheme: --sweep tries exact schemes only"),
        (
            f"{SIM} --scheduler pipeline --closing mu",
            "closing is an option of scheduler='rounds': got scheduler='pipeline'",
        ),
        (f"{SIM} --scheduler pipeline --arrival row", "arrival is an option of scheduler='rounds'"),
        (f"{SIM} --scheme gc:1 --burst 2", "burst is an option of scheduler='pipeline': got scheduler='rounds'"),
        (
            f"{SIM} --scheme async:2 --inexact --closing mu",
            "closing is an option of rounds, which async:2 does not have",
        ),
        (f"{SIM} --sweep --parts 3", "parts is an option of --scheduler pipeline: --sweep makes its own pipelines"),
        (f"{SIM} --sweep --lanes 1", "lanes is an option of --scheduler pipeline: --sweep makes its own pipelines"),
        (f"{SIM} --sweep --places 2", "places is an option of --scheduler pipeline: --sweep makes its own pipelines"),
        (f"{SIM} --places 9", "got places=9, workers=4"),
        (f"{SIM} --seed -1", "the seed must be at least 0: got -1"),
        (f"{SIM} --models 1000000", "simulate takes at most 16384 models"),
        ("simulate --profile none --workers 999999999", "there can be at most 16384 workers: got 999999999"),
        ("simulate --trace t.npz --seed 3", "seed is an option of --profile, whose delays are generated: got --trace"),
        ("plan --profile none --workers 0", "there must be at least one worker: got 0"),
        ("plan --profile none --workers 999999999", "there can be at most 16384 workers: got 999999999"),
        (
            "plan --profile none --workers 4 --unfinished gone",
            "unfinished must be one of lost, overlap, serial: got 'gone'",
        ),
        (
            "plan --profile none --workers 4 --objective bogus",
            "objective must be one of seconds, worker-seconds, price",
        ),
        ("plan --profile none --workers 4 --models 99999999", "plan takes models <= 16384: got 99999999"),
        ("plan --profile none --workers 4 --slope nan", "slope must be finite and >= 0"),
        (
            "plan --trace t.npz --seed 3",
            "seed is an option of a profile, whose delays are generated: got a trace or a run",
        ),
        ("plan bad.toml", "mu in [scheduler] is an option of closing='mu': got closing='safe'"),
        ("profile --pool local --address auto --out x.npz", "address is an option of pool='ray': got pool='local'"),
        ("profile --pool local --hosts 9 --workers 2 --out x.npz", "a pool needs 1 <= hosts <= workers"),
        ("profile --pool local --hosts 0 --workers 2 --out x.npz", "hosts in [pool] must be at least 1: got 0"),
        ("profile --pool local --rounds 99999999 --out x.npz", "profile takes at most 1000000 rounds"),
        ("profile --pool local --seconds 1e300 --out x.npz", "profile takes at most 1000000 rounds of 86400 seconds"),
        ("profile --run gone --rounds 3 --out x.npz", "rounds is an option of a pool that is measured: got --run"),
        ("doctor --python python3", "python is an option of --address, whose interpreter it names: got no --address"),
        ("submit bad.toml", "mu in [scheduler] is an option of closing='mu': got closing='safe'"),
        ("submit good.toml --closing mu", "closing is an option of scheduler='rounds': got scheduler='auto'"),
        ("submit good.toml --workers 0", "workers in [pool] must be at least 1: got 0"),
        ("submit --python python3 -- true", "python is an option of a config file: a command after -- names its own"),
        ("train bad.toml", "mu in [scheduler] is an option of closing='mu': got closing='safe'"),
        (
            "train good.toml --places 9 --workers 4",
            "places must be at most the number of workers: got places=9, workers=4",
        ),
        (
            "train good.toml --hosts 3 --pool simulated",
            "hosts is an option of pool='ray' or 'local': got pool='simulated'",
        ),
        ("train good.toml --closing soon", "closing in [scheduler] must be 'safe' or 'mu': got 'soon'"),
        ("train good.toml --mu nan", "mu is an option of scheduler='rounds': got scheduler='auto'"),
        ("train good.toml --gpus nan", "gpus in [pool] must be "),
    ],
)
def test_every_command_refuses_in_one_line_and_leaves_nothing(
    command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.toml").write_text(to_toml(from_dict(WHOLE)))
    Path("bad.toml").write_text(to_toml(from_dict(WHOLE | {"scheduler": {"scheme": "gc:1", "mu": 3.0}})))
    code = one_line_errors(lambda: cli(command.split(), prog_name="distseq", standalone_mode=False))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err
    assert sorted(os.listdir()) == ["bad.toml", "good.toml"]


def test_the_doctor_finds_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distseq.cli.doctor import config_file
    from distseq.cli.doctor.findings import Subject, examine

    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text(to_toml(from_dict(WHOLE | {"pool": {"kind": "simulated", "hosts": 3}})))
    found = [(level, text) for _, level, text in examine(config_file.CHECKS[:3], Subject(Path("bad.toml")))]
    assert ("error", "hosts in [pool] is an option of pool='ray' or 'local': got pool='simulated'") in found


def test_options_of_several_candidates_need_speak_to_one_only(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ("--scheme gc:1 --scheduler pipeline --parts 2 --closing mu --mu 2", "--sweep --closing mu --mu 2"):
        command = f"{SIM} {more} --json"
        assert one_line_errors(lambda: cli(command.split(), prog_name="distseq", standalone_mode=False)) == 0  # noqa: B023
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "candidate", "message"),
    [
        ({"objective": "bogus"}, "gc:1", "the objective must be one of seconds, worker-seconds, price: got 'bogus'"),
        ({"objective": "price"}, "gc:1", "objective = price needs prices"),
        (
            {"objective": "worker-seconds"},
            "gc:1",
            "objective of a setting is an option of 'auto': got candidate 'gc:1'",
        ),
        ({"places": 2}, "gc:1", "places of a setting is an option of 'auto': got candidate 'gc:1'"),
        ({"places": 9}, "auto", "places must be at least 0 and at most the number of workers: got places=9, workers=4"),
        ({"places": -1}, "auto", "places must be at least 0"),
        ({"models": 10**9}, "auto", "simulate takes at most 16384 models and 1000000000 jobs: got models=1000000000"),
        ({"unfinished": "gone"}, "auto", "unfinished must be one of lost, overlap, serial: got 'gone'"),
    ],
)
def test_simulate_in_python_refuses_too(changes: dict[str, Any], candidate: str, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared
        distseq.simulate(distseq.Setting(profile("none", 4, 0), **changes), candidate)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": ""}, "the objective must be one of seconds, worker-seconds, price: got ''"),
        ({"unfinished": ""}, "unfinished must be one of lost, overlap, serial: got ''"),
        ({"seed": -1}, "the seed must be at least 0: got -1"),
        ({"parameters": 10**30}, "plan takes parameters <= "),
    ],
)
def test_plan_in_python_refuses_too(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared
        distseq.plan(profile="none", workers=4, **options)
    assert str(error.value).startswith(message)


def test_evaluations_of_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(2, 1)
    data = torch.utils.data.TensorDataset(torch.randn(8, 2), torch.randn(8, 1))
    one = distseq.Learner(
        "a",
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        data=data,
        batch=4,
        steps=2,
        loss=lambda model, batch: (model(batch[0]) - batch[1]).square().mean(1),
    )
    config = replace(config_of_learners([one]), run=RunConfig(2, evaluate_every=1), pool=PoolConfig("simulated", 2))
    with pytest.raises(ValueError, match=r"^evaluate_every=1 is given, but no learner has data to evaluate on"):
        run(config, tmp_path / "run", Console(quiet=True), learners=[one])
    assert os.listdir() == []


def test_the_command_that_resumes_is_quoted() -> None:
    line = str(FailedError([LearnerFailure("a", 1, "broken", "")], "it's mine"))
    assert shlex.split(line.partition("go on with: ")[2]) == ["distseq", "train", "--resume", "it's mine"]
