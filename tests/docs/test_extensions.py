"""What makes the generated pages: nothing that the code has is missing from them."""

import importlib
import inspect
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import click
import pytest

import distseq
from distseq.cli.main import cli
from distseq.cluster import pool
from distseq.config.keys import keys
from distseq.config.schema import TABLES, LearnerConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """A module of docs/extensions, by the test's parameter."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module(f"extensions.{request.param}")


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("extension", [name], indirect=True)


@of("config_file")
def test_every_key_of_the_config_file_is_described(extension: ModuleType) -> None:
    text = extension.markdown()
    for name, table in [*TABLES.items(), ("learner", LearnerConfig)]:
        section = text.partition(f"[{name}]")[2].partition("\n## ")[0]
        assert [one.name for one in keys(table) if f"| `{one.name}` |" not in section] == []


@of("commands")
def test_every_option_of_every_command_is_described(extension: ModuleType) -> None:
    text = extension.markdown()
    for name, command in cli.commands.items():
        section = text.partition(f"## distseq {name}\n")[2].partition("\n## ")[0]
        options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        assert [one.opts[0] for one in options if f"`{one.opts[0]}" not in section] == []


@of("commands")
def test_help_is_shown_literally(extension: ModuleType) -> None:
    command = click.Command("x", params=[click.Option(["--cut"], help="One of a|b, *or* [none], as\nin a_b <c>.")])
    assert "| One of a\\|b, \\*or\\* \\[none\\], as in a\\_b \\<c>." in extension._section("x", command)


@of("architecture")
def test_the_picture_names_every_layer_and_arrows_lead_down(extension: ModuleType) -> None:
    edges = extension.imports(ROOT)
    folders = {path.name for path in (ROOT / "distseq").iterdir() if (path / "__init__.py").is_file()}
    picture = ElementTree.fromstring(extension.svg(edges))
    svg = "{http://www.w3.org/2000/svg}"
    assert {text.text for text in picture.iter(f"{svg}text")} == folders
    lines = [(float(line.attrib["y1"]), float(line.attrib["y2"])) for line in picture.iter(f"{svg}line")]
    assert lines
    assert all(begin < end for begin, end in lines)


@of("architecture")
def test_layers_that_import_each_other_have_no_picture(extension: ModuleType) -> None:
    with pytest.raises(ValueError, match="layers import each other: a -> b -> a"):
        extension.ranks({"a": frozenset("b"), "b": frozenset("a")})


@of("architecture")
def test_only_direct_imports_are_drawn(extension: ModuleType) -> None:
    edges = {"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()}
    assert extension.direct(edges) == {"a": ["b"], "b": ["c"], "c": []}


@of("architecture")
def test_every_file_is_listed_once(extension: ModuleType) -> None:
    listed = extension.files(ROOT)
    sources = extension.paths(ROOT)
    assert len(set(sources)) == len(sources)
    assert [path for path in sources if path.name != "__init__.py" and f"| `{path.name}` |" not in listed] == []
    assert f"| `pool.py` | {(pool.__doc__ or '').splitlines()[0]} |" in listed


@of("docstrings")
def test_docstrings_are_shown_as_they_are(extension: ModuleType) -> None:
    text = """Weights a_i of `rows`, |a| <= 1.

    first, second: what
        goes on.
    third: more.

    Text
      a line
      another

    >>> 2 * "a_b"
    'a_ba_b'
    """
    assert extension.plain(inspect.cleandoc(text).splitlines()) == [
        r"Weights a\_i of ``rows``, \|a\| <= 1.",
        "",
        "- **first, second**: what",
        "  goes on.",
        "- **third**: more.",
        "",
        "Text",
        "",
        "| a line",
        "| another",
        "",
        '>>> 2 * "a_b"',
        "'a_ba_b'",
        "",
    ]


@pytest.mark.parametrize("name", distseq.__all__)
def test_every_public_name_is_on_the_page_of_the_api(name: str) -> None:
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    assert name == "__version__" or f":: distseq.{name}\n" in page
