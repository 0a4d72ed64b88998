"""What a call does to the child process is told in one line; this process and the next call are not harmed."""

import os
import signal
from pathlib import Path

import pytest

from distseq.cluster.system import child_call
from distseq.cluster.system.child_call import ChildCall

ROOM = 1 << 30


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChildCall:
    (tmp_path / "calls_of_test.py").write_text(
        "import os, time\n"
        "def note(path): open(path, 'a').write(f'{os.getpid()}\\n')\n"
        "def crash(): os.kill(os.getpid(), 11)\n"
        "def leave(): os._exit(3)\n"
        "def hang(): time.sleep(60)\n"
        "def eat(): bytearray(1 << 32)\n"
        "def talk(): print('done'); raise KeyError('memory')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(child_call, "IDLE", 20.0)
    return ChildCall()


def test_each_end_of_a_call_is_told_and_the_next_call_works(child: ChildCall, tmp_path: Path) -> None:
    def call(name: str, *args: str, seconds: float = 60.0) -> str | None:
        return child.survives(f"calls_of_test:{name}", list(args), seconds=seconds, room=ROOM)

    notes = str(tmp_path / "notes")
    assert call("note", notes) is None
    assert call("talk") is None
    assert call("note", notes) is None
    # One process for all of them, so far.
    assert len(set(Path(notes).read_text().split())) == 1
    assert call("crash") == "died of SIGSEGV"
    assert call("leave") == "ended with exit code 3"
    assert call("eat") == "needed more than 1.1 GB of memory"
    assert call("hang", seconds=0.5) == "took more than 0.5 s"
    assert call("note", notes) is None
    pids = Path(notes).read_text().split()
    assert len(set(pids)) == 2
    # It may end between two calls.
    os.kill(int(pids[-1]), signal.SIGKILL)
    assert call("note", notes) is None
    child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path(notes).read_text().split()[-1]), 0)
