from __future__ import annotations

import pytest
from pydantic import Field, field_validator

from trilaw.core.config import Config, TaskSpec, override, parse, read_toml
from trilaw.core.errors import ConfigError


class Inner(Config):
    rate: float = Field(default=0.5, gt=0)


class Outer(Config):
    steps: int
    name: str = "x"
    inner: Inner = Inner()
    task: TaskSpec = TaskSpec(kind="a")
    many: list[Inner] = Field(default_factory=list)

    @field_validator("name")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 5:
            raise ValueError("a name has five letters at most")
        return value


def complaint(data: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, data, "r.toml")
    return str(caught.value)


def test_parse_fills_in_defaults_and_is_frozen():
    config = parse(Outer, {"steps": 3, "inner": {"rate": 2}}, "r.toml")
    assert (config.steps, config.inner.rate, config.name) == (3, 2.0, "x")
    with pytest.raises(Exception, match="frozen"):
        config.steps = 4


def test_complaints_name_place_and_key():
    assert complaint({}) == "r.toml: the key 'steps' is missing."
    assert complaint({"steps": 1, "stepz": 1}) == "r.toml: unknown key 'stepz' (did you mean 'steps'?)."
    assert "'inner.rat' (did you mean 'rate'?)" in complaint({"steps": 1, "inner": {"rat": 1}})
    assert "'many.0.rat' (did you mean 'rate'?)" in complaint({"steps": 1, "many": [{"rat": 1}]})
    assert complaint({"steps": 1, "inner": {"rate": -1}}).startswith("r.toml: 'inner.rate' = -1 does not hold:")
    assert (
        complaint({"steps": 1, "name": "abcdefg"})
        == "r.toml: 'name' = \"abcdefg\" does not hold: a name has five letters at most."
    )
    assert len(complaint({"steps": "y" * 500})) < 250


def test_task_spec_takes_a_word_a_table_or_both_keys():
    def of(value: object) -> TaskSpec:
        return parse(Outer, {"steps": 1, "task": value}, "r").task

    assert of("gsm8k") == TaskSpec(kind="gsm8k")
    assert of({"kind": "gsm8k", "data": "f"}) == TaskSpec(kind="gsm8k", options={"data": "f"})
    assert of({"kind": "gsm8k", "options": {"data": "f"}}) == TaskSpec(kind="gsm8k", options={"data": "f"})


def test_a_task_without_kind_is_refused_in_a_sentence():
    assert "task" in complaint({"steps": 1, "task": {"data": "f"}})
    assert "task" in complaint({"steps": 1, "task": {}})


def test_read_toml(tmp_path):
    path = tmp_path / "a.toml"
    with pytest.raises(ConfigError, match="no file"):
        read_toml(path)
    path.write_text("a = \n")
    with pytest.raises(ConfigError, match="line 1"):
        read_toml(path)
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path)
    path.write_text("a = 1\n[b]\nc = [1, 2]\n")
    assert read_toml(path) == {"a": 1, "b": {"c": [1, 2]}}


def test_override_enters_tables_and_named_stages_and_leaves_the_original():
    data = {"seed": 0, "stages": [{"name": "zero", "steps": 1}]}
    changed = override(data, ["seed=7", "stages.zero.steps=5", "tasks.calc.kind=calculator", "x.y=[1, 2]"])
    assert changed["seed"] == 7
    assert changed["stages"][0]["steps"] == 5
    assert changed["tasks"]["calc"]["kind"] == "calculator"
    assert changed["x"]["y"] == [1, 2]
    assert data == {"seed": 0, "stages": [{"name": "zero", "steps": 1}]}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("seed", "key=value"),
        ("=1", "key=value"),
        ("stages.zeor.steps=1", "did you mean 'zero'"),
        ("seed.a=1", "no table"),
        ("seed.a.b=1", "no table"),
        ("stages.zero=1", "no table"),
    ],
)
def test_override_refuses(assignment, words):
    with pytest.raises(ConfigError, match=words):
        override({"seed": 0, "stages": [{"name": "zero"}]}, [assignment])


def test_override_cannot_smuggle_in_a_second_key():
    assert override({}, ["a=1\nb = 2"]) == {"a": "1\nb = 2"}


class Shapes(Config):
    steps: tuple[int, int] = (1, 2)
    count: int = 1
    table: dict[str, int] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("steps", 3, "it must be a list"),
        ("count", "x", "it must be a whole number."),
        ("table", 3, "it must be a table"),
    ],
)
def test_complaints_speak_of_recipes_not_of_python(key, value, words):
    with pytest.raises(ConfigError, match=words):
        parse(Shapes, {key: value}, "here")


def test_numbers_are_finite():
    for rate in (float("inf"), float("nan"), 10**400):
        assert "inner.rate" in complaint({"steps": 1, "inner": {"rate": rate}})


@pytest.mark.parametrize("text", ["[" * 50_000, "[" * 5_000 + "]" * 5_000, "{a=" * 20_000, "9" * 5_000])
def test_a_value_without_end_is_a_word_in_an_override_and_a_sentence_in_a_file(tmp_path, text):
    assert override({"a": 1}, [f"a={text}"]) == {"a": text}
    path = tmp_path / "r.toml"
    path.write_text(f"a = {text}\n")
    with pytest.raises(ConfigError, match=r"r\.toml is not valid TOML"):
        read_toml(path)


def test_an_override_beside_a_date_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbfday = 2020-01-01\n[t]\nx = 1\n")
    given = read_toml(path)
    changed = override(given, ["t.x=2"])
    assert changed == {**given, "t": {"x": 2}}
    assert given["t"] == {"x": 1}, "what was given stays as it was"
