"""Tells a package that is missing or broken from other errors, in one line."""

import traceback
from types import TracebackType

# Names to install, where they are not those to import.
DISTRIBUTIONS = {"ray": "ray[default]", "tomli_w": "tomli-w", "botocore": "boto3"}


def broken_package(error: BaseException) -> str | None:
    """The line for an error that a package raised while it was imported; None for any other error."""
    name = error.name if isinstance(error, ModuleNotFoundError) else _imported(error.__traceback__)
    if name is None:
        return None
    package = name.partition(".")[0]
    if package == "distseq":
        return None
    message = " ".join("".join(traceback.format_exception_only(error)).split())
    install = f"python -m pip install --upgrade '{DISTRIBUTIONS.get(package, package)}'"
    missing = isinstance(error, ModuleNotFoundError) and error.name == package
    return (
        f"{package} is not installed: {install}" if missing else f"{package} cannot be imported: {message}; {install}"
    )


def _imported(trace: TracebackType | None) -> str | None:
    """The module, not of distseq, whose body was running when an error was raised."""
    # Python takes the frames of its import machinery out of tracebacks, so that these are all that tells.
    for frame, _ in traceback.walk_tb(trace):
        name = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name == "<module>" and name.partition(".")[0] not in ("distseq", "__main__"):
            return name
    return None
