"""Starts host processes from the forkserver without the user's `__main__` module.

multiprocessing would otherwise run the user's script again in every child, which needs nothing from it and would start a run of
its own if the script has no `if __name__ == "__main__"`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import spawn
from typing import Any

_lock = threading.Lock()  # one patch at a time
# Keys of multiprocessing's preparation data that name the script to run again.
SCRIPT = ("init_main_from_name", "init_main_from_path")


@contextmanager
def without_main_module() -> Iterator[None]:
    """Processes that this thread starts meanwhile do not import `__main__`; those of other threads do as usual.

    `sys.modules` stays as it is: another thread of the program may just be pickling an object of its script.
    """
    own = threading.get_ident()
    with _lock:
        prepare = spawn.get_preparation_data

        def prepared(name: str) -> dict[str, Any]:
            data = prepare(name)
            if threading.get_ident() != own:
                return data
            return {key: value for key, value in data.items() if key not in SCRIPT}

        # multiprocessing looks the function up in its module whenever it starts a process.
        spawn.get_preparation_data = prepared
        try:
            yield
        finally:
            spawn.get_preparation_data = prepare
