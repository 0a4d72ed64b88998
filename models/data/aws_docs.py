"""The documentation of one AWS service, from inside botocore: English text without a download."""

import difflib
import gzip
import html
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Tags within a word or sentence. Any other tag separates words.
INLINE_TAG = re.compile(r"</?(?:a|b|code|em|i|strong|u)\b[^>]*>", re.IGNORECASE)
TAG = re.compile(r"</?[a-zA-Z!][^>]*>")


def aws_text(service: str) -> str:
    """Every documentation string of the service's latest API, without tags and duplicates, one per line, in order.

    The text depends on the installed version of botocore only. ValueError for a service that botocore doesn't have.
    """
    data = _botocore_data()
    versions = sorted(data.glob(f"{service}/*/service-2.json.gz")) if service in _services(data) else []
    if not versions:
        nearest = difflib.get_close_matches(service, _services(data), n=3, cutoff=0)
        raise ValueError(f"no service {service!r} in botocore; nearest: {', '.join(nearest)}")
    api = json.loads(gzip.decompress(versions[-1].read_bytes()))
    # Once each: a description that many operations share would otherwise be in the training and in the held-out part.
    lines = dict.fromkeys(plain(markup) for markup in _documentation(api))
    return "\n".join(line for line in lines if line)


def plain(markup: str) -> str:
    """The text of a piece of HTML, on one line. Block tags separate words, inline tags don't; entities are resolved."""
    text = TAG.sub(" ", INLINE_TAG.sub("", markup))
    return " ".join(html.unescape(text).split())


def _documentation(node: Any) -> Iterator[str]:
    """The documentation strings below a JSON node, depth first."""
    if isinstance(node, dict):
        for key, child in node.items():
            if key == "documentation" and isinstance(child, str):
                yield child
            else:
                yield from _documentation(child)
    elif isinstance(node, list):
        for child in node:
            yield from _documentation(child)


def _services(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir() if path.is_dir())


def _botocore_data() -> Path:
    """botocore's data folder."""
    # Found without importing botocore, which takes half a second and is used under cluster/aws only.
    spec = find_spec("botocore")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("AWS documentation comes with botocore, which is not installed: python -m pip install boto3")
    return Path(spec.submodule_search_locations[0]) / "data"
