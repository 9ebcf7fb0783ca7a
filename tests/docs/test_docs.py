"""The documentation tells the truth: commands, fields, names, snippets, links and paths are those of the code."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import trilaw
from trilaw.cli.main import build
from trilaw.core.config import TaskSpec
from trilaw.pipeline.recipe import bundled, load_recipe, parse_recipe
from trilaw.pipeline.stages import KINDS as STAGES
from trilaw.tasks.registry import KINDS as TASKS
from trilaw.tasks.registry import build as build_task
from trilaw.tasks.registry import config_class

from .pages import PAGES, ROOT, anchors, blocks, commands, links, name, prose, spans

DOCS = ROOT / "docs"


def script(stem: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(stem, ROOT / "scripts" / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs_cli, docs_fields = script("docs_cli"), script("docs_fields")


def walk(command: Any, path: str = "trilaw") -> Iterator[tuple[str, Any]]:
    """Every command of the application that really runs, groups included."""
    yield path, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, f"{path} {word}")


# Commands


def test_the_page_of_commands_is_current() -> None:
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == docs_cli.page(), "run scripts/docs_cli.py"


def test_every_command_and_option_stands_in_its_section() -> None:
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (DOCS / "cli.md").read_text(), re.DOTALL | re.MULTILINE))
    leaves = {
        path: command
        for path, command in walk(typer.main.get_command(build()))
        if path == "trilaw" or not hasattr(command, "commands")
    }
    assert set(sections) == set(leaves)
    for path, command in leaves.items():
        for parameter in command.params:
            names = [word for word in parameter.opts if word.startswith("-")] or [
                parameter.metavar or parameter.name.upper()
            ]
            for word in names:
                assert f"`{word}`" in sections[path], (path, word)


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=name)
def test_commands_in_pages_hold(page: Path, world: Path) -> None:
    known = dict(walk(typer.main.get_command(build())))
    for words in commands(page):
        path, command = "trilaw", known["trilaw"]
        while words and f"{path} {words[0]}" in known:
            path = f"{path} {words.pop(0)}"
            command = known[path]
        command.make_context(path, list(words))  # raises for an unknown option, a wrong value or a missing argument
        if path == "trilaw run":
            sets = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
            recipe = words[0] if words and not words[0].startswith("-") else "tiny"
            if recipe in bundled() and recipe != "smollm2-gsm8k":
                load_recipe(recipe, sets)


# Fields


@pytest.mark.parametrize("page", docs_fields.PAGES, ids=name)
def test_tables_of_fields_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == docs_fields.update(text), "run scripts/docs_fields.py"


def test_every_config_class_has_a_table_and_every_field_a_meaning() -> None:
    found = {cls: meanings for page in docs_fields.PAGES for cls, meanings in docs_fields.written(page.read_text())}
    known = docs_fields.classes()
    assert set(found) == set(known)
    for cls, meanings in found.items():
        assert set(meanings) == set(known[cls].model_fields), cls
        assert all(meanings.values()), (
            f"{cls}: {[field for field, text in meanings.items() if not text]} have no meaning"
        )


def test_the_script_mends_a_stale_table() -> None:
    stale = "<!-- fields: PassRateFilter -->\n| `pool` | text | `7` | problems tried |\n| `gone` | text | `1` | old |\n<!-- end -->\n"
    rows = docs_fields.update(f"before\n{stale}after\n").splitlines()
    assert rows[0] == "before"
    assert rows[-1] == "after"
    assert "| `pool` | integer > 0 | `512` | problems tried |" in rows
    assert "| `samples` | integer > 1 | `8` |  |" in rows, "a new field comes without a meaning"
    assert not any("gone" in row for row in rows)


def test_every_kind_is_listed() -> None:
    assert set(STAGES) <= anchors(DOCS / "recipes.md")
    assert set(TASKS) <= anchors(DOCS / "tasks.md") | {"custom"}
    assert all(f"`{kind}`" in prose(DOCS / "tasks.md") for kind in TASKS)
    assert all(f"| `{recipe}` |" in prose(DOCS / "run.md") for recipe in bundled())


# Names and snippets


def test_every_public_name_has_an_example() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)[^\n]*\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(trilaw.__all__)
    for public, section in sections.items():
        examples = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        assert any(f"trilaw.{public}" in code for code in examples), public


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_snippets_run(page: Path, world: Path) -> None:
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        source = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's own line
        exec(compile(source, name(page), "exec"), namespace)


def test_toml_snippets_hold() -> None:
    seen = 0
    for page in PAGES:
        for block in blocks(page, "toml"):
            data = tomllib.loads(block.code)
            seen += 1
            if "version" in data:
                parse_recipe(data, where=name(page))
            for table in data.get("tasks", {}).values():
                spec = TaskSpec.model_validate(table)
                config_class(spec.kind).model_validate(spec.options)
    assert seen


def test_the_own_tasks_are_sound(world: Path) -> None:
    page = DOCS / "tasks.md"
    (rows,) = blocks(page, "json")
    (code,) = blocks(page, "python")
    Path("mine.jsonl").write_text(rows.code)
    Path("sort.py").write_text(code.code)
    assert [json.loads(line)["answer"] for line in rows.code.splitlines()] == [42, "Lima"]
    for file in ("mine.jsonl", "sort.py"):
        done = CliRunner().invoke(build(), ["tasks", "check", file])
        assert done.exit_code == 0, done.output
    train, test = (build_task("sort.py").problems(split) for split in ("train", "test"))
    assert not {problem.id for problem in train} & {problem.id for problem in test}


# Links and paths


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_resolve(page: Path) -> None:
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_in_backticks_exist(page: Path) -> None:
    rooms = {folder.name for folder in (ROOT / "src/trilaw").iterdir() if folder.is_dir()}
    for span in spans(page):
        top = span.partition("/")[0]
        if not re.fullmatch(r"[\w./-]+", span) or "/" not in span:
            continue
        if top in ("src", "docs", "tests", "scripts", "examples", "benchmarks"):
            assert (ROOT / span).exists(), span
        elif top in rooms and Path(span).suffix in (".py", ".toml"):
            assert (ROOT / "src/trilaw" / span).exists(), span
