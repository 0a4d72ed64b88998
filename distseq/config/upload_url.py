"""Parses where `[run] upload` copies a run folder to; pure."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

LATER = ("s3", "gs", "az", "abfs", "hdfs", "http", "https", "ssh", "sftp")


def upload_folder(url: str) -> Path:
    """The folder of a file:// URL. ValueError, with the way out, for anything else.

    >>> upload_folder("file:///mnt/results")
    PosixPath('/mnt/results')
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"upload in [run] must be a URL like file:///mnt/results: got {url!r} ({error})") from None
    if parts.scheme in LATER:
        raise ValueError(
            f"upload in [run] takes file:// for now, and {parts.scheme}:// only once a pool needs it: copy to a mounted folder, "
            f"or copy the run folder yourself when the run has ended; got {url!r}"
        )
    path = unquote(parts.path)
    wrong = parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment
    if wrong or not path.startswith("/") or "\0" in path:
        raise ValueError(
            f"upload in [run] must be file:// and an absolute path, with three slashes, like file:///mnt/results: got {url!r}"
        )
    return Path(path)
