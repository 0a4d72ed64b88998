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


def sent_token(environment: Mapping[str, str], home: Path) -> str | None:
    """The token that Ray's client sends in this environment; None if it sends none."""
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    source = token_source(environment, home)
    if source is None:
        return None
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    return environment.get("RAY_AUTH_TOKEN") or _read(Path(named or home / ".ray" / "auth_token"), source)


def readable_by_others(environment: Mapping[str, str], home: Path, file: Path | None = None) -> Path | None:
    """The file that the token is taken from, if other users of this machine may read it. Ray itself writes such files."""
    if file is None and environment.get("RAY_AUTH_TOKEN"):
        return None
    path = file or Path(environment.get("RAY_AUTH_TOKEN_PATH") or home / ".ray" / "auth_token")
    return path if path.is_file() and path.stat().st_mode & 0o077 else None


def refusal(address: str, status: int, source: str | None, mode: str | None = None) -> str:
    """What to do about a 401 (no token was sent) or a 403 (a wrong one was). `mode`: RAY_AUTH_MODE."""
    if status == 401 and source is not None and mode is not None and mode.lower() != "token":
        return (
            f"the cluster at {address} requires a token, and RAY_AUTH_MODE={mode} keeps this client from sending that of "
            f"{source}: set RAY_AUTH_MODE=token"
        )
    if status == 401:
        refused = f"the cluster at {address} requires a token and was sent none (401)"
        return f"{refused}: put the cluster's token in one of {PLACES}, or give --token-file FILE"
    refused = (
        f"the cluster at {address} rejects the token of {source or 'this client'} (403): it belongs to another cluster"
    )
    return f"{refused}. Tokens are looked for in --token-file FILE, then in {PLACES}"


def without_authentication(address: str) -> str:
    """What is wrong with a cluster that asks for no token, and how to mend or to accept it."""
    return (
        f"the Ray cluster at {address} has no authentication: whoever reaches it can run code there and read what is trained. "
        "Start it with a token (`ray get-auth-token --generate`, and RAY_AUTH_MODE=token for every `ray start`), or accept it, "
        "on a network that you trust, with --insecure (insecure = true in [pool])"
    )


def _read(path: Path, option: str) -> str:
    try:
        # Stripped, since an editor's final newline would end up in an HTTP header.
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{option}: cannot read a token from {path}: {getattr(error, 'strerror', error)}") from None
    if not token:
        raise ValueError(f"{option}: {path} holds no token")
    return token
