"""What the laws are fitted to is what the run folder's files say, number by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trilaw.reports.measurements import curves, entropy, losses, material, measurements, read_counts
from trilaw.reports.read import read_run, sample_store

from .conftest import FakeRun, write


def base(fake: FakeRun, name: str, tokens: int, loss: float, floor: float | None = 1.05) -> None:
    metrics = {"valid_loss": loss} | ({} if floor is None else {"valid_entropy": floor})
    fake.stage(
        name,
        "pretrain",
        {"model": "model", "tokens": tokens, "flops": 5e6 * tokens, "metrics": metrics},
        task="calc",
    )
    fake.model(name, 128)


def store(fake: FakeRun, stage: str, model: str, correct: list[int], samples: int = 4) -> None:
    """`correct[i]` right samples of problem i; the first wrong one has no answer, the others say 7."""
    lines = []
    for problem, right in enumerate(correct):
        for index in range(samples):
            wrong = None if index == right else "7"
            row = {
                "problem": f"test/{problem}",
                "sample": index,
                "value": float(index < right),
                "extracted": "42" if index < right else wrong,
                "usage": {"prompt_tokens": 10, "completion_tokens": 20 + index},
            }
            lines.append(json.dumps(row))
    write(sample_store(fake.folder / "stages" / stage, model, "test"), "\n".join(lines) + "\n")


def rows(models: dict[str, float]) -> list[dict[str, Any]]:
    place = {"task": "calc", "split": "test", "metric": "pass@1", "n": 3, "method": "-"}
    return [{"stage": name, "value": v, "low": v, "high": v, **place} for name, v in models.items()]


@pytest.fixture
def run(fake: FakeRun) -> Path:
    base(fake, "small", 500_000, 1.4)
    base(fake, "big", 1_000_000, 1.2)
    fake.grpo("zero", "big", 0.9)
    done = {"evaluations": rows({"big": 0.2, "zero": 0.9})}
    fake.stage("exam", "eval", done, models=["big", "zero"], task="calc", splits=["test", "hard"])
    kept = {f"zero@{step}": 0.2 + 0.01 * step for step in (10, 20, 30, 40)}
    done = {"evaluations": rows({"small": 0.1, **kept})}
    fake.stage("points", "eval", done, models=["small", *kept], task="calc", splits=["test"], for_laws=True)
    for stage, model in [("exam", "big"), ("exam", "zero"), ("points", "small"), *(("points", name) for name in kept)]:
        store(fake, stage, model, [0, 1, 4])
    return fake.close()


def test_losses_are_the_annealed_ends(run: Path) -> None:
    points = losses(read_run(run))
    assert [(p.tokens, p.loss, p.flops, p.group) for p in points] == [
        (5e5, 1.4, 2.5e12, "calc"),
        (1e6, 1.2, 5e12, "calc"),
    ]
    assert points[0].parameters == points[1].parameters > 0
    assert entropy(read_run(run)) == 1.05


def test_an_entropy_that_differs_or_is_unknown_is_none(fake: FakeRun) -> None:
    base(fake, "a", 1000, 1.4, 1.0)
    base(fake, "b", 1000, 1.4, None)
    assert entropy(read_run(fake.close())) is None


def test_the_curve_is_held_out_where_enough_models_were_kept(run: Path) -> None:
    (curve,) = curves(read_run(run))
    assert curve.source == "accuracy on calc / test"
    # compute before the stage, after 10, 20, 30, 40 steps (events: 6e10 a step, from step 0), at its end
    assert [p.compute for p in curve.points] == pytest.approx([0.0, 6.6e11, 1.26e12, 1.86e12, 2.46e12, 5.4e12])
    assert [p.value for p in curve.points] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.9])
    assert {p.questions for p in curve.points} == {3}


def test_else_it_is_the_reward_before_each_step(tiny_run: Path) -> None:
    found = {curve.stage: curve for curve in curves(read_run(tiny_run))}
    points = found["zero"].points
    assert found["zero"].source == "reward of the training batches"
    assert [p.compute for p in points[:3]] == [0.0, 6e10, 12e10]
    assert len(points) == 50


def test_a_coin_has_no_curve(fake: FakeRun) -> None:
    base(fake, "big", 1000, 1.2)
    fake.grpo("coin", "big", 0.5)
    fake.stages[-1]["reward"] = "random"
    done = {"evaluations": rows({"coin": 0.1})}
    fake.stage("exam", "eval", done, models=["big", "coin"], task="calc", splits=["test"])
    for model in ("big", "coin"):
        store(fake, "exam", model, [1, 2, 3])
    read = read_run(fake.close())
    assert curves(read) == ()
    assert [m.model for m in measurements(read)] == ["big"]  # what a coin bought is no point of a law


def test_measurements_know_what_was_spent(run: Path) -> None:
    found = {m.model: m for m in measurements(read_run(run))}
    assert set(found) == {"big", "zero", "small", "zero@10", "zero@20", "zero@30", "zero@40"}
    assert found["big"].rl_flops == found["small"].rl_flops == 0
    assert found["zero"].rl_flops == 5.4e12
    assert found["zero@20"].rl_flops == pytest.approx(1.26e12)
    assert (found["zero@20"].tokens, found["zero@20"].loss, found["zero@20"].pretrain_flops) == (1e6, 1.2, 5e12)
    assert found["small"].loss == 1.4
    assert {m.task for m in found.values()} == {"calc/test"}
    assert measurements(read_run(run), "hard") == ()


def test_counts_and_votes(run: Path) -> None:
    counts, prompt, completion = read_counts(run / "stages" / "exam" / "big-test.jsonl")
    assert [(c.problem, c.samples, c.correct) for c in counts] == [("test/0", 4, 0), ("test/1", 4, 1), ("test/2", 4, 4)]
    assert [(c.right_votes, c.wrong_votes) for c in counts] == [((), (3,)), ((1,), (2,)), ((4,), ())]
    assert (prompt, completion) == (10.0, 21.5)


def test_kept_models_are_points_and_no_results(run: Path) -> None:
    read = read_run(run)
    assert [row.stage for row in read.shown] == ["big", "zero"]
    assert len(read.evaluations) == 7
    assert set(material(read).counts) == {"big", "zero"}


def test_a_killed_run_has_fewer_points(run: Path) -> None:
    (run / "stages" / "points" / "done.json").unlink()
    sample_store(run / "stages" / "points", "zero@40", "test").unlink()
    found = {m.model for m in measurements(read_run(run))}
    assert found == {"big", "zero", "small", "zero@10", "zero@20", "zero@30"}


def test_models_from_outside_have_counts_and_no_tokens(fake: FakeRun) -> None:
    fake.grpo("zero", "owner/name", 0.9)
    done = {"evaluations": rows({"owner/name": 0.2, "zero": 0.9, "other/model": 0.3})}
    fake.stage("exam", "eval", done, models=["owner/name", "zero", "other/model"], task="calc", splits=["test"])
    for model in ("owner/name", "zero", "other/model"):
        store(fake, "exam", model, [0, 1, 4])
    found = material(read_run(fake.close()))
    assert {m.model: m.tokens for m in found.measurements} == {"owner/name": 0.0, "zero": 0.0}
    assert set(found.counts) == {"owner/name", "zero", "other/model"}, "more samples have a law without a size too"


def test_one_task_at_a_time(fake: FakeRun) -> None:
    base(fake, "big", 1000, 1.2)
    for stage, task, right in (("exam", "calc", [1, 2, 3]), ("other", "gsm", [4, 4, 4])):
        fake.stage(stage, "eval", {"evaluations": rows({"big": 0.2})}, models=["big"], task=task, splits=["test"])
        store(fake, stage, "big", right)
    found = material(read_run(fake.close()))
    assert [m.task for m in found.measurements] == ["calc/test"]
    assert [c.correct for c in found.counts["big"]] == [1, 2, 3]


def test_an_answer_judged_both_ways_is_two(tmp_path: Path) -> None:
    row = {"problem": "p", "extracted": "7", "usage": {}}
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps({**row, "sample": i, "value": v}) + "\n" for i, v in enumerate([1, 0, 1, 0.5])))
    ((count,), prompt, completion) = read_counts(path)
    assert (count.samples, count.correct, count.right_votes, count.wrong_votes) == (4, 2, (2,), (2,))
    assert (prompt, completion) == (0.0, 0.0)


def test_a_long_run_is_pooled(fake: FakeRun) -> None:
    fake.grpo("zero", "base", 0.9, steps=1201)
    fake.stages[-1]["problems"] = 32
    (curve,) = curves(read_run(fake.close()))
    assert len(curve.points) == 401
    rewards = [row["reward"] for row in fake.events]
    assert curve.points[0].value == pytest.approx(sum(rewards[:3]) / 3)
    assert [p.compute for p in curve.points[:2]] == pytest.approx([6e10, 24e10])
    assert {p.questions for p in curve.points} == {96, 32}


@pytest.mark.parametrize("listed", [5, "abc", {"a": 1}, [[1]], None])
def test_lists_of_another_kind_are_none(fake: FakeRun, listed: object) -> None:
    fake.stage("exam", "eval", {}, models=listed, task="calc", splits=listed)
    assert measurements(read_run(fake.close())) == ()
