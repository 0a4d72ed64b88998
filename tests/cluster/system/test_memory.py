"""Memory that is left, as the system tells it."""

from pathlib import Path

from distseq.cluster.system.memory import UNLIMITED, available_memory


def test_a_containers_limit_counts_and_its_cache_of_files_does_not(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 700 kB\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) == 700 * 1024
    for name, text in {"max": "5000", "current": "4000", "stat": "anon 1\ninactive_file 200\nactive_file 30\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert available_memory(tmp_path / "meminfo", tmp_path) == 1230
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) == 700 * 1024


def test_where_the_system_says_nothing_there_is_no_limit(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "meminfo", tmp_path) == UNLIMITED


def test_this_machine_has_some() -> None:
    assert 0 < available_memory() <= UNLIMITED
