"""Which Ray a run uses, and which addresses are refused; no Ray is started."""

import pytest

from distseq.cluster.ray.address import AUTO, HERE, JOB, LOCAL, Running, choose

CLUSTER = "10.0.0.5:6379"
OURS = Running("127.0.0.1:6400", own=True)
THEIRS = Running(CLUSTER, own=False)


@pytest.mark.parametrize(
    ("given", "variable", "running", "chosen"),
    [
        ("", None, None, LOCAL),
        ("", "", None, LOCAL),
        ("", CLUSTER, None, CLUSTER),
        ("", "auto", None, AUTO),
        ("", "local", None, LOCAL),
        ("auto", None, None, AUTO),
        ("auto", CLUSTER, None, CLUSTER),
        ("local", CLUSTER, None, LOCAL),
        ("10.0.0.9:6379", CLUSTER, None, "10.0.0.9:6379"),
        ("[::1]:6379", None, None, "[::1]:6379"),
        ("", None, OURS, HERE),
        ("", "10.0.0.9:6379", THEIRS, HERE),
        ("auto", None, THEIRS, HERE),
        ("local", None, OURS, HERE),
        (CLUSTER, None, THEIRS, HERE),
    ],
)
def test_the_option_comes_before_the_variable_and_both_before_a_local_ray(
    given: str, variable: str | None, running: Running | None, chosen: str
) -> None:
    environment = {} if variable is None else {"RAY_ADDRESS": variable}
    assert choose(given, environment, running) == chosen


@pytest.mark.parametrize("given", ["ray://10.0.0.5:10001", "RAY://head", "ray://"])
def test_ray_client_is_refused_with_the_way_out(given: str) -> None:
    with pytest.raises(
        ValueError, match=r"address '.*': .*:// .* Ray Client.* distseq submit --address http://HOST:8265"
    ):
        choose(given, {}, None)
    with pytest.raises(ValueError, match=r"^RAY_ADDRESS '.*Ray Client"):
        choose("", {"RAY_ADDRESS": given}, None)


@pytest.mark.parametrize("given", ["http://10.0.0.5:8265", "https://head"])
def test_a_dashboard_is_for_jobs(given: str) -> None:
    with pytest.raises(
        ValueError, match=f"RAY_ADDRESS '{given}' is that of a dashboard.*distseq submit --address {given}"
    ):
        choose("", {"RAY_ADDRESS": given}, None)


@pytest.mark.parametrize(
    "given", ["head", "head:", ":6379", "head:port", "head:0", "head:65536", "he ad:1", "a@b:1", "²:²"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"^address must be HOST:PORT, auto or local: got "):
        choose(given, {}, None)


@pytest.mark.parametrize(("given", "running"), [("local", THEIRS), ("10.0.0.9:6379", THEIRS), ("10.0.0.9:6379", OURS)])
def test_a_process_has_one_ray(given: str, running: Running) -> None:
    with pytest.raises(ValueError, match=r"already connected to Ray at .*: leave the address out to use it"):
        choose(given, {}, running)


def test_a_job_does_not_start_a_second_ray() -> None:
    job = {JOB: "{}", "RAY_ADDRESS": CLUSTER}
    assert choose("", job, None) == CLUSTER
    with pytest.raises(
        ValueError, match="address 'local' would start a second Ray inside a Ray job: leave the address out"
    ):
        choose("local", job, None)
