"""A worker pool on Ray actors, and tools for a running Ray cluster."""

from importlib.util import find_spec


def check_installed(what: str) -> None:
    """ValueError, saying what needs Ray and how to get it, where it is not installed."""
    if find_spec("ray") is None:
        raise ValueError(f"{what} needs ray, which is not installed: python -m pip install 'ray[default]'")
