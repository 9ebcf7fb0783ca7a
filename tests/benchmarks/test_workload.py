"""What peers work on: questions, prompts, text, and the model that all of them load."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import rollout
import torch
import workload

from trilaw.model.loading import load


@pytest.fixture
def material(folder: Path, tmp_path: Path) -> workload.Material:
    options = argparse.Namespace(model=str(folder), dtype=None, device="cpu")
    return workload.prepare(options, tmp_path / "saved")


def test_the_folder_has_the_weights_in_bfloat16(folder: Path, material: workload.Material) -> None:
    before, after = load(folder, dtype=torch.float32).model, load(material.folder, dtype=torch.float32).model
    for (name, one), (_, other) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert torch.equal(one.bfloat16().float(), other), name
    assert material.dtype == "float32", "a small model"
    assert material.gguf is None


def test_a_model_that_is_not_there_ends_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There is no model 'smollm3'"):
        workload.prepare(argparse.Namespace(model="smollm3", dtype=None, device="cpu"), tmp_path / "saved")


def test_questions_of_a_file_go_round(tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"question": f"q{i}", "answer": "#### 1"}) + "\n" for i in range(3)))
    assert workload.questions(file, 2, 3) == ["q2", "q0", "q1"]


def test_arithmetic_questions_differ() -> None:
    asked = workload.questions(None, 0, 100)
    assert len(set(asked)) == 100
    assert workload.questions(None, 40, 3) == asked[40:43]


def test_text_rows_are_full_and_follow_each_other(material: workload.Material) -> None:
    rows = workload.text_rows(material, None, 200, 256)
    assert {len(row) for row in rows} == {256}
    text = material.tokenizer.decode([token for row in rows for token in row])
    assert len(text) == 200 * 256
    assert text.startswith("\n".join(workload.questions(None, 0, 100)))


def rollout_options(**more: object) -> argparse.Namespace:
    common = {"questions": None, "problems": 2, "samples": 3, "new": 4, "rounds": 2, "tries": 2, "single": False}
    return argparse.Namespace(**{**common, **more})


def test_every_round_of_a_rollout_has_prompts_of_its_own(material: workload.Material) -> None:
    (peer,) = rollout.peers(["trilaw"], rollout_options(), material, "float32")
    prompts = [tuple(prompt) for turn in peer.job["prompts"] for prompt in turn]
    assert len(peer.job["prompts"]) == 1 + 2 * 2, "a warm-up, and each round as often as it may be tried"
    assert len(set(prompts)) == len(prompts) == 2 * 5


def test_a_single_stream_is_greedy_and_has_the_bandwidth_beside_it(material: workload.Material) -> None:
    made = rollout.peers(["trilaw", "ceiling"], rollout_options(single=True), material, "int4")
    jobs = {peer.name: peer.job for peer in made}
    assert list(jobs)[:2] == ["trilaw", "ceiling-float32"]
    assert list(jobs)[-1] == "bandwidth"
    assert all((j["samples"], j["greedy"], len(j["prompts"][0])) == (1, True, 1) for j in jobs.values())
    assert jobs["bandwidth"]["weights"] == "int4"


@pytest.mark.parametrize("native", [True, False])
def test_ceilings_follow_the_machine(
    native: bool, material: workload.Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload.precision, "native_bfloat16", lambda device: native)
    assert material.ceilings() == ["float32", "bfloat16"][: 1 + native]
