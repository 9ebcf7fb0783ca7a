"""The page: one file, safe with any text, true for any state of a run."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from trilaw.reports.html import build, side_by_side
from trilaw.reports.read import read_run

from .conftest import BASE, FakeRun, write

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects elements, attributes and text, and checks that elements nest and ids are unique."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(folder: Path) -> Page:
    page = Page(build(folder).read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_page_shows_the_run(built: Path) -> None:
    page = Page((built / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    text = page.text.replace("\u00a0", " ")
    assert "zero solves 95 % [94, 96] of held-out problems, base 23 % [21, 25]: a gain of 72 points." in text
    for part in (
        "Loss against compute",
        "Reward in training",
        "Accuracy on calc / hard",
        "7 min 21 s",
        "A processor of 2024",
        "trilaw run recipe.toml",
    ):
        assert part in text
    assert page.tags.count("figure") == page.tags.count("svg") == 9
    assert "Unfinished" not in text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_page_refers_to_nothing_outside_itself(built: Path) -> None:
    html = (built / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "a", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href", "action"):
            assert value.startswith("#")
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html
    ids = {value for name, value in page.attributes if name == "id"}
    assert {value[1:] for name, value in page.attributes if name == "href"} <= ids


def test_hostile_text_stays_text(fake: FakeRun) -> None:
    evil = "<script>alert(1)</script>"
    fake.pretrain("base", 128, 1.0)
    fake.grpo("zero", "base", 0.9)
    for row in fake.events:
        if row["stage"] == "zero":
            row[f'task/"><{evil}'] = 0.5
    name = f'{evil}"$x_{{1}}$&amp;'
    fake.exam({"base": {"test": BASE}, name: {f"<b>{evil}": BASE}})
    fake.samples(
        "base",
        "test",
        [
            (f"{evil}<img src=x onerror=alert(1)>\x00\x1b[31m\u202e\ud800 </pre></article>", 0.0),
            ("y" * 3_000_000, 0.0),
            ("]]>-->{{ 7*7 }}", 0.0),
        ],
    )
    folder = fake.close()
    write(folder / "recipe.toml", f'name = "tiny" # </pre>{evil}')
    page = parse(folder)
    assert not {"script", "img"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count(evil) >= 4
    assert "{{ 7*7 }}" in page.text
    assert "(2,998,000 more characters)" in page.text
    assert not {"\x00", "\x1b", "\u202e"} & set(page.text)
    assert (folder / "report.html").stat().st_size < 500_000


def test_the_problems_shown_are_the_first_by_id_whatever_the_answers(tiny_run: Path) -> None:
    place, sides = side_by_side(read_run(tiny_run))
    assert place == "calc / test"
    assert [side.problem for side in sides] == ["test/0", "test/1", "test/2"]
    assert [[answer.stage for answer in side.answers] for side in sides] == [["base", "zero"]] * 3
    assert [[answer.verdict for answer in side.answers] for side in sides] == [
        ["wrong", "right"],
        ["right", "right"],
        ["wrong", "right"],
    ]


def test_an_unfinished_run_says_so_and_shows_what_there_is(fake: FakeRun) -> None:
    fake.pretrain("base", 128, 1.0)
    fake.grpo("zero", "base", 0.9, done=False, steps=20)
    fake.exam({"base": {"test": BASE}}, done=False)
    fake.samples("base", "test", [("= 21 so far", 0.0)])
    page = parse(fake.close())
    assert "= 21 so far" in page.text
    assert "Still to come: zero, exam." in page.text
    assert "Reward in training" in page.text
    assert "Results" not in page.text


def test_a_run_with_no_file_but_its_plan(tmp_path: Path) -> None:
    write(tmp_path / "resolved.json", {"stages": [{"name": "base", "kind": "pretrain"}]})
    page = parse(tmp_path)
    assert "no result yet" in page.text
    assert "svg" not in page.tags


def test_building_twice_gives_the_same_files(fake: FakeRun) -> None:
    fake.pretrain("base", 128, 1.0)
    fake.exam({"base": {"test": BASE}})
    folder = fake.close()
    first = build(folder).read_bytes(), (folder / "report.json").read_bytes()
    assert (build(folder).read_bytes(), (folder / "report.json").read_bytes()) == first
    assert not list(folder.glob(".tmp-*"))
