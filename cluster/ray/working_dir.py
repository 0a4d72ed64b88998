"""Lists the files of a working directory that Ray would upload, by Ray's own rules.

The rules are internal to Ray and have changed between versions: 2.52 has no default excludes and always honours .gitignore.
"""

import inspect
import logging
import os
from pathlib import Path

from ray._private import ray_constants
from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE, _dir_travel, _get_excludes

LIMIT: int = GCS_STORAGE_MAX_SIZE  # bytes of one package, which Ray does not compress
# Ray logs a warning for each large file, which is the caller's to report.
SILENT = logging.Logger("distseq.package", logging.CRITICAL + 1)


def contents(folder: Path, excludes: list[str]) -> dict[str, int]:
    """Path below `folder` -> size in bytes, of each file that .gitignore, .rayignore and `excludes` do not exclude.

    ValueError if a file cannot be read.
    """
    sizes: dict[str, int] = {}

    def note(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size

    defaults: list[str] = getattr(ray_constants, "get_runtime_env_default_excludes", list)()
    options = {"include_gitignore": os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"}
    # Ray 2.52 has no such argument: it always honours .gitignore.
    known = inspect.signature(_dir_travel).parameters
    try:
        _dir_travel(
            folder,
            [_get_excludes(folder, [*defaults, *excludes])],
            note,
            logger=SILENT,
            **{name: value for name, value in options.items() if name in known},
        )
    except OSError as error:
        raise ValueError(f"cannot send working dir {folder}: {error.filename}: {error.strerror}") from None
    return sizes
