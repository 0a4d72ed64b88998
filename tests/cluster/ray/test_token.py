"""A client sends the token that Ray would find, and is told where one is looked for."""

from pathlib import Path

import pytest

from distseq.cluster.ray.auth_token import PLACES, client_token, readable_by_others, refusal


def test_a_token_switches_authentication_on(tmp_path: Path) -> None:
    assert client_token({"RAY_AUTH_TOKEN": "t"}, tmp_path) == ("RAY_AUTH_TOKEN", {"RAY_AUTH_MODE": "token"})


def test_without_a_token_nothing_is_switched(tmp_path: Path) -> None:
    assert client_token({}, tmp_path) == (None, {})


def test_the_places_come_in_ray_s_order(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("home")
    named = tmp_path / "named"
    named.write_text("named")
    environment = {"RAY_AUTH_TOKEN": "t", "RAY_AUTH_TOKEN_PATH": str(named)}
    assert client_token(environment, tmp_path).source == "RAY_AUTH_TOKEN"
    del environment["RAY_AUTH_TOKEN"]
    assert client_token(environment, tmp_path).source == f"RAY_AUTH_TOKEN_PATH={named}"
    assert client_token({}, tmp_path).source == str(tmp_path / ".ray/auth_token")


def test_a_file_that_is_given_goes_before_every_place(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine\n")
    environment = {"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "disabled"}
    found = client_token(environment, tmp_path, tmp_path / "token")
    assert environment | found.variables == {"RAY_AUTH_TOKEN": "mine", "RAY_AUTH_MODE": "token"}


def test_a_mode_that_is_set_stays(tmp_path: Path) -> None:
    assert client_token({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "disabled"}, tmp_path).variables == {}


@pytest.mark.parametrize(("text", "reason"), [(None, "cannot read a token from"), (" \n", "holds no token")])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=f"--token-file: .*{reason}"):
        client_token({}, tmp_path, file)
    with pytest.raises(ValueError, match=f"RAY_AUTH_TOKEN_PATH: .*{reason}"):
        client_token({"RAY_AUTH_TOKEN_PATH": str(file)}, tmp_path)


@pytest.mark.parametrize(("status", "reason"), [(401, "was sent none"), (403, "rejects the token of RAY_AUTH_TOKEN")])
def test_a_refusal_says_where_a_token_is_looked_for(status: int, reason: str) -> None:
    said = refusal("http://head:8265", status, "RAY_AUTH_TOKEN")
    assert reason in said
    assert PLACES in said
    assert "--token-file" in said


def test_a_token_that_others_can_read_is_found(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    default, named = tmp_path / ".ray/auth_token", tmp_path / "named"
    for file in (default, named):
        file.write_text("t")
        file.chmod(0o644)
    assert readable_by_others({}, tmp_path) == default
    assert readable_by_others({"RAY_AUTH_TOKEN_PATH": str(named)}, tmp_path) == named
    assert readable_by_others({}, tmp_path, named) == named
    assert readable_by_others({"RAY_AUTH_TOKEN": "t"}, tmp_path) is None
    default.chmod(0o600)
    assert readable_by_others({}, tmp_path) is None
    assert readable_by_others({}, tmp_path / "gone") is None


def test_a_mode_that_keeps_a_token_back_is_named() -> None:
    said = refusal("head:6379", 401, "RAY_AUTH_TOKEN", "disabled")
    assert (
        "RAY_AUTH_MODE=disabled keeps this client from sending that of RAY_AUTH_TOKEN: set RAY_AUTH_MODE=token" in said
    )
