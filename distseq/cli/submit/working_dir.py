"""Checks that the working directory sent to a cluster is small enough and holds every file that the config file names."""

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from distseq.coding.schemes.registry import own_class
from distseq.config.schema import Config

FILES = ("text", "folder", "arrays", "csv", "parquet", "hf")  # kinds of data that name a file or folder
TRACES = (".npz", ".csv")
MiB = 1 << 20


def too_large(sizes: Mapping[str, int], limit: int) -> str | None:
    """A message that names what takes most room, if files (path -> bytes) exceed `limit` bytes; else None."""
    total = sum(sizes.values())
    if total < limit:
        return None
    parts: dict[str, int] = {}
    for path, size in sizes.items():
        head, inside, _ = path.partition("/")
        parts[head + inside] = parts.get(head + inside, 0) + size
    # Three are enough to see what to ignore: usually it is one folder of data or runs.
    largest = sorted(parts, key=lambda part: -parts[part])[:3]
    named = ", ".join(f"{part} {parts[part] / MiB:.0f} MiB" for part in largest)
    return f"holds {total / MiB:.0f} MiB, Ray sends at most {limit / MiB:.0f}: list in .rayignore what is not needed ({named})"


def left_behind(config: Config, sent: Mapping[str, int], folder: Path) -> Iterator[str]:
    """A message for each file that training would miss: it is not in the working dir `folder`, or is ignored.

    sent: the files that Ray would send, path -> bytes.
    """
    for one in config.learner:
        if one.model.partition(":")[2] and not _module_travels(one.model, sent):
            yield f"learner {one.name}: model {one.model!r}: {_why(_file_of(one.model), folder)}"
        for what, data in (("data", one.data), ("evaluation", one.evaluation or "")):
            path, module = _data_path(data), _data_module(data)
            if path is not None and not _path_travels(path, sent):
                yield f"learner {one.name}: {what} {data!r}: {_why(path, folder)}"
            if module is not None and not _module_travels(module, sent):
                yield f"learner {one.name}: {what} {data!r}: {_why(_file_of(module), folder)}"
    trace = Path(config.pool.delays)
    if trace.suffix.lower() in TRACES and not trace.is_absolute() and not _path_travels(trace, sent):
        yield f"delays {config.pool.delays!r}: {_why(trace, folder)}"
    scheme = own_class(config.scheduler.scheme)
    if scheme is not None and not _module_travels(scheme, sent):
        yield f"scheme {config.scheduler.scheme!r}: {_why(_file_of(scheme), folder)}"


def _why(path: Path, folder: Path) -> str:
    there = (folder / path).exists() or (folder / path.with_suffix("")).is_dir()
    return f"{path} is {'left out by an ignore file of' if there else 'not in'} the working dir {folder}"


def _file_of(target: str) -> Path:
    return Path(*target.partition(":")[0].split(".")[:1]).with_suffix(".py")


def _module_travels(target: str, sent: Mapping[str, int]) -> bool:
    """Whether the module of an import string is sent, or is part of an installation that the cluster may have."""
    top = target.partition(":")[0].partition(".")[0]
    if f"{top}.py" in sent or any(path.startswith(f"{top}/") for path in sent):
        return True
    return top == "distseq" or top in sys.stdlib_module_names or _installed(top)


def _installed(top: str) -> bool:
    """Whether a package is installed in site-packages here, so that the cluster may have it, too."""
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
    return any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)


def _path_travels(path: Path, sent: Mapping[str, int]) -> bool:
    name = Path(*path.parts).as_posix()
    return name == "." or name in sent or any(other.startswith(f"{name}/") for other in sent)


def _data_path(data: str) -> Path | None:
    """The relative path that a data spec names, if it names one."""
    prefix, _, rest = data.partition(":")
    return Path(rest) if prefix in FILES and rest and not Path(rest).is_absolute() else None


def _data_module(data: str) -> str | None:
    """The import string of a data set of the user's own."""
    prefix, _, rest = data.partition(":")
    if prefix == "torch":
        return rest
    return None if prefix in (*FILES, "aws") or not rest else data
