"""A host process starts without the user's script, whatever other threads do meanwhile."""

import pickle
import sys
import threading
from multiprocessing import spawn
from types import ModuleType

import pytest

from distseq.cluster.local.start import SCRIPT, without_main_module


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A `__main__` that was run from a file."""
    main = ModuleType("__main__")
    main.__file__ = "/somewhere/script.py"
    main.Thing = type("Thing", (), {"__module__": "__main__"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main


def names_script(data: object) -> bool:
    return any(key in SCRIPT for key in data)  # type: ignore[attr-defined]


def test_the_script_is_not_named_to_the_process(script: ModuleType) -> None:
    assert names_script(spawn.get_preparation_data("host"))
    with without_main_module():
        assert not names_script(spawn.get_preparation_data("host"))
        assert sys.modules["__main__"] is script
    assert names_script(spawn.get_preparation_data("host"))


def test_other_threads_see_their_script_meanwhile(script: ModuleType) -> None:
    seen: list[bool] = []

    def other() -> None:
        seen.append(names_script(spawn.get_preparation_data("their own process")))
        seen.append(type(pickle.loads(pickle.dumps(script.Thing()))) is script.Thing)

    with without_main_module():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
    assert seen == [True, True]


def test_an_error_leaves_multiprocessing_as_it_was() -> None:
    before = spawn.get_preparation_data
    with pytest.raises(OSError, match="no more processes"), without_main_module():
        raise OSError("no more processes")
    assert spawn.get_preparation_data is before
