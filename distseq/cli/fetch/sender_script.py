"""A script that prints the files of a run folder, on the machine of a Ray cluster that holds it.

    python sender_script.py RUN BYTES

state.json, in the current folder, says how many bytes of each file the receiver has. Printed are, as lines of JSON behind MARK,
all files with their sizes and digests, then up to BYTES of what is missing. It imports nothing but the standard library, so the
cluster needs no distseq.
"""

import base64
import hashlib
import json
import os
import platform
import sys
import zlib

MARK = "distseq run: "
# Bytes of a file in one line: some 64 kB of text, which no reader of logs chokes on.
CHUNK = 48 * 1024
FILES = 100_000


def send(run: str, most: int, have: dict[str, int]) -> None:
    """Print the files, and at most `most` bytes more than the receiver has."""
    files = sorted(listed(run))
    if not os.path.isfile(os.path.join(run, "config.toml")):
        say({"error": f"{run} on {platform.node()} is no run folder: it has no config.toml"})
    elif len(files) > FILES:
        say({"error": f"{run} holds {len(files)} files, more than the {FILES} of any run"})
    else:
        # Sizes first: a run that goes on lets its files grow, and what is sent is what they are now.
        sizes = {path: os.path.getsize(os.path.join(run, path)) for path in files}
        for path, size in sizes.items():
            say({"file": path, "size": size, "sha256": digest(os.path.join(run, path), size)})
        left = most
        for path, size in sizes.items():
            left = send_file(run, path, have.get(path, 0), size, left)
        say({"end": "all" if left > 0 else "more"})


def listed(run: str) -> list[str]:
    """Paths below a run folder, without links and hidden files: those are locks and writes that were cut off."""
    found = []
    for folder, folders, files in os.walk(run):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [os.path.join(folder, name) for name in files if not name.startswith(".")]
        found += [os.path.relpath(path, run) for path in paths if os.path.isfile(path) and not os.path.islink(path)]
    return found


def digest(path: str, size: int) -> str:
    """The SHA-256 of the first `size` bytes."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (data := file.read(min(size, 1 << 20))):
            found.update(data)
            size -= len(data)
    return found.hexdigest()


def send_file(run: str, path: str, at: int, size: int, left: int) -> int:
    """Print bytes `at` to `size` of a file, at most `left` of them; returns how many may still be sent."""
    with open(os.path.join(run, path), "rb") as file:
        file.seek(at)
        while at < size and left > 0 and (data := file.read(min(CHUNK, size - at, left))):
            say({"data": path, "at": at, "zlib": base64.b64encode(zlib.compress(data, 1)).decode()})
            at, left = at + len(data), left - len(data)
    return left


def say(record: dict[str, object]) -> None:
    print(f"{MARK}{json.dumps(record)}")


if __name__ == "__main__":
    with open("state.json", encoding="utf-8") as file:
        state = json.load(file)
    try:
        send(os.path.expanduser(sys.argv[1]), int(sys.argv[2]), state)
    # A file that went while it was read, such as an old checkpoint: the receiver asks again.
    except FileNotFoundError as error:
        say({"end": "changed", "file": error.filename})
    except OSError as error:
        say({"error": f"cannot read {error.filename} on {platform.node()}: {error.strerror}"})
