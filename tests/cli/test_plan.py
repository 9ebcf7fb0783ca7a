"""`trilaw plan`: what it prints, what it refuses and how, and that it starts fast."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from trilaw.cli.main import main
from trilaw.core.errors import RequestError

V3 = ("train", "deepseek-v3", "--hardware", "h800", "--count", "2048", "--tokens", "14.8T")
CHAT = ("serve", "llama-3.1-8b", "--hardware", "h100", "--count", "8", "--prompt", "500", "--response", "200")
RL = ("rl", "qwen2.5-7b", "--hardware", "h100", "--count", "16", "--response", "2000", "--steps", "10")


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> Any:
    """`plan("chip", "h100")`: what the command prints; `plan.refused(...)`: its one sentence, after it ended with status 2."""

    class Plan:
        def run(self, words: tuple[str, ...]) -> tuple[int | str | None, str, str]:
            with pytest.raises(SystemExit) as end:
                main(["plan", *words])
            return end.value.code, *capsys.readouterr()

        def __call__(self, *words: str) -> str:
            status, out, err = self.run(words)
            assert (status, err) == (0, "")
            assert all(len(line) <= 100 for line in out.splitlines() if not line.startswith("Picture"))
            return out

        def json(self, *words: str) -> Any:
            status, out, err = self.run((*words, "--json"))
            assert (status, err) == (0, "")

            def refuse(name: str) -> None:
                raise AssertionError(f"{name} is no JSON")

            return json.loads(out, parse_constant=refuse)

        def refused(self, *words: str) -> str:
            status, out, err = self.run(words)
            assert (status, out) == (2, "")
            assert err.startswith("error: ")
            assert err.count("\n") == 1
            return err

    return Plan()


# What it says


def test_train_says_what_deepseek_published(plan: Any) -> None:
    data = plan.json(*V3)
    assert data["precision"] == "fp8-v3", "as the model was trained"
    assert data["gpu_hours"] == pytest.approx(2_664_000, rel=0.15)  # arXiv 2412.19437, table 1: pre-training
    assert data["mfu"] == pytest.approx(0.3894, rel=0.15)  # arXiv 2505.09343, table 4
    assert data["usd"] == pytest.approx(2 * data["gpu_hours"])
    assert data["seconds"] * 2048 / 3600 == pytest.approx(data["gpu_hours"])
    assert data["memory_bytes"] == data["memory_parts"]["total"] <= data["memory_capacity"] < 81_559 * 2**20
    assert sum(data["step_parts"].values()) == pytest.approx(data["step_seconds"])
    text = plan(*V3)
    assert text.startswith("deepseek-v3 on 2,048 H800 SXM: 14.8T tokens in sequences of 4,096, fp8-v3\n")
    for words in (
        f"{data['gpu_hours']:,.0f}",
        "$2.00 a chip-hour",
        "arXiv 2412.19437",
        "next best layouts",
        data["layout"]["words"],
        "recomputed",
        "traffic of a chip in a step",
    ):
        assert words in text


def test_train_defaults_are_said(plan: Any) -> None:
    data = plan.json("train", "llama-7b", "--hardware", "a100", "--count", "64")
    assert data["context"] == 2048, "the model takes no more"
    assert data["precision"] == "bf16-mixed"
    assert data["tokens"] == 20 * 6_738_415_616  # the weights of LLaMA 7B
    said = [line for line in data["sheet"]["lines"] if line["name"] == "tokens"]
    assert said[0]["source"].startswith("arXiv 2203.15556")
    assert plan.json("train", "smollm2-135m", "--hardware", "zen3", "--count", "1")["precision"] == "fp32"


def test_options_of_train_are_used(plan: Any) -> None:
    given = plan.json(
        *V3, "--batch", "62914560", "--assume", "mfu=0.3894", "--price", "3", "--precision", "bf16-mixed", "--no-mtp",
        "--layout", "tp=4,pp=32,dp=16,ep=64,schedule=dualpipe,recompute=full",
    )  # fmt: skip
    assert given["mfu"] == pytest.approx(0.3894)
    assert given["usd"] == pytest.approx(3 * given["gpu_hours"])
    assert given["batch_tokens"] == 62_914_560
    assert (given["layout"]["pp"], given["layout"]["recompute"], given["precision"]) == (32, "full", "bf16-mixed")
    assert {a["name"]: a["source"] for a in given["sheet"]["assumptions"]}["mfu"] == "given by you"
    assert plan.json(*V3)["memory_bytes"] != plan.json(*V3, "--no-mtp")["memory_bytes"]


def test_explain_prints_the_arithmetic_and_the_assumptions(plan: Any) -> None:
    text = plan(*V3, "--explain")
    data = plan.json(*V3)
    flat = " ".join(text.split())
    for line in data["sheet"]["lines"]:
        assert f"{line['name']} = {' '.join(line['formula'].split())} = " in flat
    for assumption in data["sheet"]["assumptions"]:
        assert f"{assumption['name']} = " in flat
        assert " ".join(assumption["source"].split()) in flat


def test_serve_and_the_cost_of_a_solved_problem(plan: Any) -> None:
    data = plan.json(*CHAT, "--curve", "1=0.2,4=0.5", "--latency", "0.02", "--batch", "64")
    assert data["seconds_per_output_token"] <= 0.02
    assert data["concurrency"] == 64
    assert data["usd"] == pytest.approx(data["gpu_hours"] * data["price_per_hour"])
    assert data["seconds"] == pytest.approx(data["seconds_to_first_token"] + 199 * data["seconds_per_output_token"])
    assert data["usd"] / 700 * 1e6 == pytest.approx(data["usd_per_million"])
    one, four = data["answers"]
    assert four["usd_per_solved"] == pytest.approx(four["usd"] / 0.5)
    assert one["output_tokens"] * 4 == four["output_tokens"]
    text = plan(*CHAT, "--curve", "1=0.2,4=0.5", "--explain")
    for words in ("output tokens/s", "a user waits", "cost a solved one", "serve_bandwidth = "):
        assert words in text
    assert plan.json("serve", "deepseek-r1", "--hardware", "h100", "--count", "32")["weight_bits"] == 8, "as published"


def test_rl_says_its_parts(plan: Any) -> None:
    data = plan.json(*RL)
    parts = sum(data[f"{name}_seconds"] for name in ("writing", "tail", "reward", "score", "update", "sync"))
    assert parts == pytest.approx(data["cycle_seconds"])
    assert data["seconds"] == pytest.approx(10 * data["cycle_seconds"])
    assert 0 < data["mfu"] < 1
    text = plan(*RL, "--explain")
    assert "waiting for the longest, 6,000 tokens" in text
    assert "rl_update_mfu = " in text
    assert "chips write" in plan(*RL, "--placement", "split", "--score-passes", "0", "--longest", "4000")


def test_chip_shows_sources_prices_and_class_by_day(plan: Any) -> None:
    text = plan("chip", "H100", "--date", "2025-01-27")
    for words in (
        "989.4 TFLOP/s",
        "80 GB",
        "450 GB/s",
        "15,832",
        "3A090.a",
        "Sources",
        "2025-01-27",
        "no legal advice",
    ):
        assert words in text
    before = plan.json("chip", "h20", "--date", "2025-01-27")["export"]
    after = plan.json("chip", "h20", "--date", "2025-04-10")["export"]
    assert (before["review"], after["review"]) == ("no licence", "licence by letter")
    assert plan.json("chip", "4090")["export"]["on"] == date.today().isoformat()
    assert "TPP = " in plan("chip", "h100", "--explain")


def test_compare(plan: Any) -> None:
    rows = plan.json("compare", "--hardware", "h800, h100,cpu", "--date", "2025-01-27")
    assert [row["chip"] for row in rows] == ["H800 SXM", "H100 SXM", "epyc-zen4-2core"]
    assert [row["possible"] for row in rows] == [True, True, False]
    assert rows[0]["floor_hours"] < rows[0]["hours"]
    text = plan("compare", "--hardware", "h800,h100,h20,4090,cpu", "--date", "2025-01-27")
    assert "cannot be done" in text
    assert "H20, epyc-zen4-2core: No licence" in text
    votes = plan.json(
        "compare", "--hardware", "h100,4090", "--target", "answers", "--accuracy", "0.85", "--answers", "1M"
    )
    single = plan.json("compare", "--hardware", "h100,4090", "--target", "answers", "--answers", "1M")
    assert [votes[0]["k"], single[0]["k"]] == [64, 1]
    for row, other in zip(votes, single, strict=True):
        assert row["floor_hours"] == pytest.approx(64 * other["floor_hours"]), "also where it cannot be done"


def test_datacentre_and_a_claim(plan: Any) -> None:
    data = plan.json("datacentre", "--capex", "500e9")
    assert data["chips"] * data["usd_per_chip"] == pytest.approx(500e9)
    assert "claim" not in data
    text = plan("datacentre", "--capex", "500B", "--explain")
    for words in ("GW of IT", "a million output tokens", "Published, by definition", "datacentre_use = "):
        assert words in text
    claim = plan.json("datacentre", "--gw", "0.15", "--racks", "50000")["claim"]
    assert (claim["verdict"], round(claim["watts_per_gpu"])) == ("impossible", 42)
    assert "50,000 racks of 72" in plan("datacentre", "--gw", "0.15", "--racks", "50000")
    assert plan.json("datacentre", "--gw", "1.2", "--gpus", "400e3")["claim"]["verdict"] == "plausible"


def test_lists(plan: Any) -> None:
    models = {row["name"]: row for row in plan.json("models")}
    assert models["deepseek-v3"]["kv_bytes_per_token"] == 70_272
    chips = {row["name"]: row for row in plan.json("hardware")}
    assert chips["H100 SXM"]["flops"]["bf16"] == 989.4e12
    assert chips["H20"]["usd_per_hour"] is None
    for command, rows in (("models", models), ("hardware", chips)):
        text = plan(command)
        assert all(f"\n{name} " in text for name in rows)


def test_validate(plan: Any) -> None:
    data = plan.json("validate", "--calibration")
    assert {row["room"] for row in data["rows"]} == {"training", "serving", "sums and formulas of training"}
    for row in data["rows"]:
        assert abs(row["error"]) <= 0.15 or row["why"], row["what"]
    assert data["calibration"]
    text = plan("validate")
    assert "within 15 %" in text
    assert "calibration, errors" not in text


def test_calibrate_writes_a_chip(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trilaw.planner import calibrate as room
    from trilaw.planner.hardware import chip

    def measured(seconds: float, *, name: str) -> Any:
        assert seconds == 1.5
        from dataclasses import replace

        return replace(chip("zen3"), name=name, aliases=())

    monkeypatch.setattr(room, "calibrate", measured)
    file = tmp_path / "here.toml"
    assert str(file) in plan.run(("calibrate", "--out", str(file), "--seconds", "1.5", "--name", "mine"))[1]
    assert chip(str(file)).name == "mine"
    assert 'name = "here"' in plan.run(("calibrate", "--seconds", "1.5", "--name", "here"))[1]
    assert plan.json("calibrate", "--seconds", "1.5")["kind"] == "cpu"
    assert ".toml" in plan.refused("calibrate", "--out", str(tmp_path / "here.json"))
    assert (
        plan.json("train", "smollm2-135m", "--hardware", str(file), "--count", "1", "--tokens", "1M")["chip"] == "mine"
    )


@pytest.mark.parametrize("words", [V3, CHAT], ids=["train", "serve"])
def test_pictures(plan: Any, tmp_path: Path, words: tuple[str, ...]) -> None:
    svg, png = tmp_path / "p.svg", tmp_path / "p.png"
    assert f"Picture: {svg}" in plan(*words, "--picture", str(svg))
    plan.json(*words, "--picture", str(png))
    assert svg.read_text().startswith("<?xml")
    assert ("activations" if words == V3 else "decode, weights") in svg.read_text()
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "ends in .svg or .png" in plan.refused(*words, "--picture", str(tmp_path / "p.pdf"))


# What it refuses


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "deepseek-v33", *V3[2:]), "did you mean 'deepseek-v3'"),
        (("train", "deepseek-v3", "--hardware", "h80", "--count", "8"), "did you mean 'H800'"),
        (("serve", "nothing-like-it", "--hardware", "h100", "--count", "8"), "known: deepseek-r1, "),
        (("train", "deepseek-v3", "--hardware", "h800", "--count", "8"), "does not fit on 8 H800 SXM"),
        (("train", "deepseek-v3", "--hardware", "h800", "--count", "8"), "chips would do"),
        ((*V3, "--layout", "tp=3,dp=2048"), "the plan has 2048"),
        ((*V3, "--layout", "tp=4,pp=2,dp=256,ep=5"), "256 experts of deepseek-v3 do not divide over ep = 5; 8 would"),
        ((*V3, "--layout", "tp=8,dp=256"), "chips would do"),
        ((*V3, "--layout", "zer=1"), "did you mean 'zero'"),
        ((*V3, "--layout", "tp"), "write KEY=VALUE, for example tp=8"),
        ((*V3, "--layout", "tp=eight"), "'tp' must be a whole number"),
        ((*V3, "--layout", "flash=perhaps"), "'flash' must be true or false"),
        ((*V3, "--layout", "recompute=ful"), "did you mean 'full'"),
        ((*V3[:-1], "-5"), "--tokens is '-5'"),
        ((*V3[:-1], "many"), "--tokens is 'many': give a number above 0, such as 14.8e12 or 14.8T"),
        ((*V3[:-1], "nan"), "--tokens is 'nan'"),
        ((*V3[:-1], "1e30"), "no such amount of text"),
        ((*V3, "--batch", "1000"), "no whole number of sequences"),
        ((*V3, "--context", "0"), "context is 0"),
        ((*V3, "--context", "1000000"), "163840 tokens of context"),
        ((*V3, "--precision", "fp8-mix"), "did you mean 'fp8-mixed'"),
        (("train", "deepseek-v3", "--hardware", "h800", "--count", "-1"), "count is -1"),
        ((*V3, "--price", "-1"), "must be a positive number of dollars"),
        ((*V3, "--price", ".00/h"), "single quotes"),
        ((*V3, "--price", "runpod"), "'runpod' has no price for H800 SXM"),
        ((*V3, "--assume", "mfo=0.4"), "did you mean 'mfu'"),
        ((*V3, "--assume", "mfu"), "write NAME=VALUE"),
        ((*V3, "--assume", "mfu=0.4", "--assume", "mfu=0.5"), "twice"),
        ((*V3, "--assume", "mfu=-1"), "must be a finite number"),
        ((*V3, "--assume", "train_launch=1e300"), "a thousand times beyond what was ever seen (6e-05 to 0.005): is the unit right?"),
        ((*V3, "--assume", "train_matmul=1e-300"), "a thousand times beyond"),
        ((*V3, "--price", "1e300"), "is the unit right?"),
        ((*V3, "--batch", "16777216T"), "more than the 14,800,000,000,000 of the run: take more tokens or a smaller batch"),
        (("train", "smollm2-135m", "--hardware", "h100", "--count", "9999991"), "take more tokens or fewer chips"),
        ((*V3, "--assume", "train_matmul=1.5"), "it is a share"),
        (("train", "deepseek-v3", "--hardware", "a100", "--count", "2048", "--precision", "fp8-v3"), "no speed in 'fp8'"),
        ((*CHAT, "--curve", "1:0.5"), "--curve is '1:0.5'"),
        ((*CHAT, "--curve", "1=1.5"), "must lie between 0 and 1"),
        ((*CHAT, "--curve", "1=0.5,1=0.6"), "it gives a k twice"),
        ((*CHAT, "--batch", "0.5"), "at least one sequence is in flight"),
        ((*CHAT, "--cached", "1"), "at least 0 and below 1"),
        ((*CHAT, "--weight-bits", "12"), "must be 16, 8 or 4"),
        ((*CHAT, "--latency", "1e-9"), "the least, for a sequence alone"),
        ((*CHAT, "--layout", "expert=8"), "dense model"),
        (("serve", "deepseek-r1", "--hardware", "h100", "--count", "2"), "the smallest number that holds it"),
        ((*RL, "--samples", "1"), "at least 2 samples"),
        ((*RL, "--longest", "1000000"), "131072 tokens of context at most"),
        ((*RL, "--rollout-steps", "11"), "cannot feed 11 updates of a run of 10"),
        ((*RL, "--problems", "1000000000000000"), "is a number too large?"),
        ((*RL, "--placement", "splitt"), "did you mean 'split'"),
        (("rl", "deepseek-r1", "--hardware", "h100", "--count", "8"), "at least"),
        (("chip", "h1000"), "did you mean"),
        (("chip", "h100", "--date", "27.1.2025"), "write it as 2025-01-27"),
        (("compare", "--hardware", ","), "name at least one"),
        (("compare", "--target", "answer"), "did you mean 'answers'"),
        (("compare", "--accuracy", "0.5"), "--accuracy does not go with --target r1-pipeline"),
        (("compare", "--target", "answers", "--rl-count", "5"), "--rl-count does not go with"),
        (("compare", "--target", "answers", "--accuracy", "0.99"), "the best is 0.867"),
        (("compare", "--target", "answers", "--prompt", "-1"), "prompt is -1"),
        (("compare", "--rl-count", "4096"), "it is a part of the 2048 chips"),
        (("compare", "--target", "answers", "--hardware", "4090", "--accuracy", "0.99"), "the best is 0.867"),
        (("datacentre",), "Give either the money"),
        (("datacentre", "--gw", "1", "--capex", "1e9"), "Give either the money"),
        (("datacentre", "--gw", "-1"), "must be a positive number"),
        (("datacentre", "--gw", "1", "--prompt", "0"), "error: prompt is 0"),
        (("datacentre", "--capex", "1e30"), "more than the world has"),
        (("datacentre", "--gw", "1", "--definition", "grid"), "no definition"),
        (("datacentre", "--gw", "1", "--racks", "0"), "must be a positive number"),
    ],
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_one_sentence_and_status_2(plan: Any, words: tuple[str, ...], said: str) -> None:
    assert said in plan.refused(*words)


def test_files_that_do_not_hold(plan: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    where = ("train", str(folder), "--hardware", "h100", "--count", "8", "--tokens", "1B")
    assert "no config.json" in plan.refused(*where)
    config = folder / "config.json"
    config.write_text('{"model_type": "llama", "vocab_size": 100, "num_hidden_layers": 2}')
    assert "hidden_size" in plan.refused(*where)
    config.write_text('{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1000000000}')
    assert "no model has more than 10000 layers" in plan.refused(*where)
    config.write_text('{"model_type": "mamba", "hidden_size": 8}')
    assert "mamba" in plan.refused(*where)
    config.write_text("{")
    assert "no JSON" in plan.refused(*where)
    chip = tmp_path / "mine.toml"
    text = 'name = "mine"\nkind = "gpu"\nsource = "me"\ndate = "2026"\nmemory = "80"\nmemory_bandwidth = "3 TB/s"\n[flops]\nbf16 = "1 PFLOP/s"\n'
    for wrong, said in (
        (text, "has no unit"),
        (text.replace('"80"', '"80 GB/s"'), "'GB/s' is no unit of an amount of memory"),
        (text.replace('"80"', "80"), "has no unit"),
        (text.replace('"80"', '"80 GB"').replace("PFLOP/s", "PFLOPS"), "is no unit of a speed of arithmetic"),
        (text.replace('"80"', '"80 GB"').replace("memory_bandwidth", "bandwidth"), "memory_bandwidth"),
    ):
        chip.write_text(wrong)
        assert said in plan.refused("chip", str(chip))
    assert "There is no file" in plan.refused("chip", str(tmp_path / "none.toml"))


# How fast it starts


def test_a_plan_loads_nothing_heavy() -> None:
    """Typer itself brings in pydantic."""
    heavy = (
        "torch",
        "numpy",
        "scipy",
        "matplotlib",
        "rich",
        "huggingface_hub",
        "urllib.request",
        "http.client",
    )
    code = (
        "import sys\nfrom trilaw.cli.main import main\n"
        f"try: main(['plan', *{V3!r}])\nexcept SystemExit as end: assert end.code == 0\n"
        f"print(sorted(set({heavy!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_amounts() -> None:
    from trilaw.cli.plan_options import amount, assumed

    assert [amount(text, "--x") for text in ("14.8T", "2e9", "1_000k", "3,000", "5B", "7m")] == [
        14.8e12, 2e9, 1e6, 3000, 5e9, 7e6,
    ]  # fmt: skip
    with pytest.raises(RequestError):
        amount("T", "--x")
    assert assumed(["mfu=0.4", " serve_link =0.5"]) == {"mfu": 0.4, "serve_link": 0.5}
