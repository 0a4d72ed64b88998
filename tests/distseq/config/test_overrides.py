"""Options of `train` take the place of keys of the config file."""

from typing import Any

import pytest

from distseq.config.options import OPTIONS
from distseq.config.overrides import override
from distseq.config.toml_file import from_dict
from tests.distseq.config.configs import LEARNER, WHOLE


def test_options_replace_keys_of_the_config_file_and_none_keeps_them() -> None:
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


def test_every_option_is_a_key_of_the_config_file() -> None:
    for name, option in OPTIONS.items():
        readers = {"scheduler": "rounds"} | {kind: known[0] for kind, known in option.key.meaning.readers.items()}
        config = override(from_dict(WHOLE), readers)
        value = getattr(getattr(config, option.table), option.key.name)
        assert override(config, {name: value}) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 3}, "train has no option 'speed'; known: steps, "),
        ({"workers": 0}, "workers in [pool] must be at least 1: got 0"),
        ({"workers": "8"}, "workers in [pool] must be an integer: got '8'"),
        ({"steps": -1}, "steps in [run] must be at least 1: got -1"),
        ({"pool": "lambda"}, "kind in [pool] must be 'ray', 'local' or 'simulated': got 'lambda'"),
        ({"scheduler": "queue"}, "kind in [scheduler] must be 'auto', 'rounds', 'pipeline' or '': got 'queue'"),
        ({"scheduler": "pipeline", "parts": 0}, "parts in [scheduler] must be at least 1: got 0"),
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
        ({"scheme": "gc:1", "mu": 3.0}, "mu is an option of closing='mu': got closing='safe'"),
        ({"scheme": "gc:1", "mu": 1.0}, "mu is an option of closing='mu': got closing='safe'"),
        ({"scheme": "gc:1", "closing": "mu", "cutoff": 5.0}, "cutoff is an option of closing='safe': got closing='mu'"),
        ({"pool": "local", "unfinished": "lost"}, "unfinished is an option of pool='simulated': got pool='local'"),
        ({"pool": "ray", "compute": "rows"}, "compute is an option of pool='simulated': got pool='ray'"),
        ({"pool": "simulated", "hosts": 3}, "hosts is an option of pool='ray' or 'local': got pool='simulated'"),
        ({"pool": "local", "address": "auto"}, "address is an option of pool='ray': got pool='local'"),
        ({"pool": "local", "cpus": 2.0}, "cpus is an option of pool='ray': got pool='local'"),
        ({"pool": "local", "gpus": 0.0}, "gpus is an option of pool='ray': got pool='local'"),
        ({"pool": "local", "elastic": True}, "elastic is an option of pool='ray': got pool='local'"),
        ({"scheduler": "auto", "scheme": "gc:1"}, "scheme is an option of scheduler='rounds': got scheduler='auto'"),
        ({"inexact": True}, "inexact is an option of scheduler='rounds': got scheduler='auto'"),
        ({"prices": "message=1"}, "prices is an option of objective='price': got objective='seconds'"),
        ({"scheme": "gc:1", "objective": "bogus"}, "objective in [scheduler] must be 'seconds', 'worker-seconds' or "),
        ({"scheduler": "pipeline", "mu": 1.0}, "mu is an option of scheduler='rounds': got scheduler='pipeline'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        override(from_dict(WHOLE), options)
    assert str(error.value).startswith(message)


def test_options_that_belong_together_may_come_in_any_order() -> None:
    local = from_dict(WHOLE | {"pool": {"kind": "local"}})
    changed = override(local, {"elastic": True, "pool": "ray"})
    assert (changed.pool.kind, changed.pool.elastic) == ("ray", True)
