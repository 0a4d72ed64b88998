"""Mutants of files: bytes flipped, cut, repeated and exchanged, numbers made huge, nests made deep; the same for a seed."""

import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

Bytes = Callable[[Random, Sequence[bytes]], bytes]

HUGE = [
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"9" * 400,
    str(2**63).encode(),
    str(-(2**63) - 1).encode(),
    str(10**12).encode(),
    b"1_0",
    b"0x7f",
]
NASTY = [
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\N{ZERO WIDTH SPACE}".encode(),
    b"\x1b[31m",
    b"\r",
    b"\n\n",
    b'"',
    b"'",
    b"\\",
    b"[",
    b"{",
    b"=",
    b",",
]
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]


def mutant(rng: Random, seeds: Sequence[bytes], own: Sequence[Bytes]) -> bytes:
    """One mutant: by a structure-aware mutation of the kind's own in half of all cases, else by one to four byte-wise ones."""
    if own and rng.random() < 0.5:
        return rng.choice(own)(rng, seeds)
    content = rng.choice(seeds)
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(BYTEWISE)(rng, content, seeds)
    return content


def _flip(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(rng.choice([1, 1, 1, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _block(rng: Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice([1, 2, 8, 64, 512]))


def _drop(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = _block(rng, content)
    return content[:start] + content[end:]


def _double(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = _block(rng, content)
    return content[:end] + content[start:end] * rng.choice([1, 1, 20]) + content[end:]


def _swap(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    a, b, c, d = sorted(rng.randrange(len(content) + 1) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _splice(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice([*NASTY, rng.randbytes(rng.choice([1, 4, 64]))]) + content[at:]


def _enlarge(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A number in the text, if there is one, becomes an extreme one."""
    numbers = list(re.finditer(rb"\d+", content))
    if not numbers:
        return _extreme(rng, content, seeds)
    found = rng.choice(numbers)
    return content[: found.start()] + rng.choice(HUGE) + content[found.end() :]


def _extreme(rng: Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """A number of 1 to 8 bytes, little-endian as in all binary formats here, becomes an extreme one."""
    width = rng.choice([1, 2, 4, 8])
    at = rng.randrange(max(1, len(content) - width + 1))
    value = rng.choice(EXTREMES) % 2 ** (8 * width)
    return content[:at] + value.to_bytes(width, "little") + content[at + width :]


BYTEWISE = (_flip, _cut, _drop, _double, _swap, _splice, _insert, _enlarge, _extreme)

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1e308,
    float("nan"),
    "",
    "\0",
    "x" * 300,
    "\ud800",
    [],
    {},
    [[]],
    {"": {}},
    [1, "a", None],
]


def odd(rng: Random) -> Any:
    """An odd value of its own: one that is shared would change with the mutant that it is put into, and come to hold itself."""
    return deepcopy(rng.choice(ODD))


def nested(rng: Random, depth: int) -> Any:
    """Lists and objects in each other, up to `depth` deep."""
    value: Any = odd(rng)
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def changed_json(rng: Random, value: Any) -> Any:
    """A copy of plain data with one to three nodes replaced, dropped, renamed or repeated."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return odd(rng)
        inside, key = rng.choice(places)
        match rng.randrange(5):
            case 0:
                inside[key] = odd(rng)
            case 1:
                inside[key] = nested(rng, rng.choice([1, 3, 30]))
            case 2:
                del inside[key]
            case 3 if isinstance(inside, dict):
                inside[rng.choice(["", "kind", "name", "x", "\0", str(key) + "s"])] = inside.pop(key)
            case _:
                other, at = rng.choice(places)
                # Copied, since the place itself may lie in it.
                copied = (
                    json.loads(json.dumps(other[at]))
                    if at in (other if isinstance(other, dict) else range(len(other)))
                    else None
                )
                inside[key] = copied
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)
