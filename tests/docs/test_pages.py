"""What README.md and the pages of docs/ show is what happens: every code block runs, or says why it cannot."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from distseq.config.toml_file import from_dict
from tests.docs.blocks import CHECKED, DIRECTIVES, PROSE, RUN, Block, blocks, needs, pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = pages(ROOT)
SECONDS = 300  # of one block, on a machine that is busy with other tests
REQUIRED = {"name": "m", "model": "my_models:build", "data": "csv:train.csv", "batch": 8}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@every_page
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{page.name}:{block.line}"
        if block.language.startswith("{"):  # a directive of the site, not code
            continue
        assert block.language in (*CHECKED, *PROSE), (
            f"{where}: nobody checks blocks of {block.language or 'no language'}"
        )
        assert block.directive in ("", *DIRECTIVES), f"{where}: unknown directive {block.directive!r}"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [target for target in targets if "://" not in target and target and not (page.parent / target).exists()]
    assert missing == []


@every_page
def test_configurations_are_ones(page: Path) -> None:
    """A fragment is completed by a learner that has what every learner needs."""
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "toml" and block.directive != "not run":
            raw = tomllib.loads(block.code)
            raw["defaults"] = {**REQUIRED, **raw.get("defaults", {})}
            raw.setdefault("learner", [{}])
            from_dict(raw)


@pytest.mark.slow
@pytest.mark.timeout(900)
@every_page
def test_what_it_shows_runs(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for folder in needs(text):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for block in blocks(text):
        if block.directive == "not run":
            continue
        if block.directive in ("file", "append"):
            with open(tmp_path / block.value, "a" if block.directive == "append" else "w", encoding="utf-8") as file:
                file.write(block.code)
        elif block.language in RUN:
            run(block, tmp_path, f"{page.name}:{block.line}")


def run(block: Block, folder: Path, where: str) -> None:
    """A shell block in bash, a Python block as a script of its own; both from an otherwise empty folder."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = ["bash", "-euo", "pipefail", "-c", block.code]
    if block.language == "python":
        command = [sys.executable, "-c", block.code]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL
    )
    expected = int(block.value) if block.directive == "exit" else 0
    assert done.returncode == expected, f"{where}\n{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_parser_sees_fences_and_what_is_said_of_them() -> None:
    page = "text\n\n<!-- file: a.toml -->\n```toml\nx = 1\n```\n\n````sh\n```\n````\n```\nplain\n```\n"
    assert [(b.language, b.code, b.line, b.directive, b.value) for b in blocks(page)] == [
        ("toml", "x = 1\n", 4, "file", "a.toml"),
        ("sh", "```\n", 8, "", ""),
        ("", "plain\n", 11, "", ""),
    ]
