"""Finds a Ray cluster's authentication token, in Ray's own order, and explains a refused one."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PLACES = "RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, and ~/.ray/auth_token"


def token_source(environment: Mapping[str, str], home: Path) -> str | None:
    """Which of PLACES holds a token; None if none does. ValueError if RAY_AUTH_TOKEN_PATH is set and holds none."""
    # Ray's own order: the variable, then the file that a variable names, then the default file.
    if environment.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    if path := environment.get("RAY_AUTH_TOKEN_PATH"):
        _read(Path(path), "RAY_AUTH_TOKEN_PATH")
        return f"RAY_AUTH_TOKEN_PATH={path}"
    default = home / ".ray" / "auth_token"
    return str(default) if default.is_file() else None


class Token(NamedTuple):
    """Where a token was found (None = nowhere), and the environment variables that make Ray's client send it."""

    source: str | None
    variables: dict[str, str]


def client_token(environment: Mapping[str, str], home: Path, file: Path | None = None) -> Token:
    """The token in `file`, else the first of PLACES. ValueError if a file that is named holds no token.

    The variables must be set before Ray is imported. A RAY_AUTH_MODE that is set already stays, unless there is a `file`.
    """
    if file is not None:
        token = _read(file, "--token-file")
        return Token(str(file), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    source = token_source(environment, home)
    mode = environment.get("RAY_AUTH_MODE")
    # Ray's job client sends no token while RAY_AUTH_MODE is unset, even where there is one, and gets a 401.
    return Token(source, {"RAY_AUTH_MODE": "token"} if source is not None and not mode else {})


def refusal(address: str, status: int, source: str | None) -> str:
    """What to do about a 401 (no token was sent) or a 403 (a wrong one was)."""
    if status == 401:
        refused = f"the cluster at {address} requires a token and was sent none (401)"
        return f"{refused}: put the cluster's token in one of {PLACES}, or give --token-file FILE"
    refused = (
        f"the cluster at {address} rejects the token of {source or 'this client'} (403): it belongs to another cluster"
    )
    return f"{refused}. Tokens are looked for in --token-file FILE, then in {PLACES}"


def _read(path: Path, option: str) -> str:
    try:
        # Stripped, since an editor's final newline would end up in an HTTP header.
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{option}: cannot read a token from {path}: {getattr(error, 'strerror', error)}") from None
    if not token:
        raise ValueError(f"{option}: {path} holds no token")
    return token
