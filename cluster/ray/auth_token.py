"""Where a client finds the token of a Ray cluster, in Ray's own order, and what is said to one that is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PLACES = "RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, and ~/.ray/auth_token"


def token_source(environment: Mapping[str, str], home: Path) -> str | None:
    """Which of PLACES holds a token; None = none does. ValueError when RAY_AUTH_TOKEN_PATH names no token."""
    if environment.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    if path := environment.get("RAY_AUTH_TOKEN_PATH"):
        _read(Path(path), "RAY_AUTH_TOKEN_PATH")
        return f"RAY_AUTH_TOKEN_PATH={path}"
    default = home / ".ray" / "auth_token"
    return str(default) if default.is_file() else None


class Token(NamedTuple):
    """Where a token was found (None = nowhere), and the variables that make Ray's client send it."""

    source: str | None
    variables: dict[str, str]


def client_token(environment: Mapping[str, str], home: Path, file: Path | None = None) -> Token:
    """The token in `file`, else the first of PLACES. RAY_AUTH_MODE stays as it is where it is set, but for a `file`.

    To be set before Ray is imported. ValueError when a file that is named holds no token.
    """
    if file is not None:
        token = _read(file, "--token-file")
        return Token(str(file), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    source = token_source(environment, home)
    asked = environment.get("RAY_AUTH_MODE")
    return Token(source, {"RAY_AUTH_MODE": "token"} if source is not None and not asked else {})


def refusal(address: str, status: int, source: str | None) -> str:
    """What to do about a 401 (no token came) or a 403 (a wrong one did)."""
    if status == 401:
        said = f"the cluster at {address} wants a token and was sent none (401)"
        return f"{said}: put the cluster's token in one of {PLACES}, or give --token-file FILE"
    said = f"the cluster at {address} refuses the token of {source or 'this client'} (403)"
    return f"{said}: it is not this cluster's. One is looked for in {PLACES}; --token-file FILE goes first"


def _read(path: Path, named: str) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{named}: cannot read a token from {path}: {getattr(error, 'strerror', error)}") from None
    if not token:
        raise ValueError(f"{named}: {path} holds no token")
    return token
