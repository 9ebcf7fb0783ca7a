"""`trilaw fit` on tables: each law from a file, what it refuses, and plain data behind --json."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from trilaw.cli.main import main


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    path = tmp_path / "losses.csv"
    rows = ["parameters,tokens,loss"]
    for n in (1e7, 3e7, 1e8, 3e8):
        rows += [f"{n:.0f},{d:.0f},{1.69 + 406.4 / n**0.34 + 410.7 / d**0.28:.12f}" for d in (1e9, 4e9, 2e10)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    draw = np.random.default_rng(3)
    rows = ["problem,samples,correct,votes"]
    for i in range(60):
        right = int(draw.binomial(16, draw.beta(0.8, 1.5)))
        wrong = 16 - right
        rows.append(f"p{i},16,{right},{right or ''}/{' '.join(str(v) for v in (wrong // 2, wrong - wrong // 2) if v)}")
    path = tmp_path / "counts.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_pretraining_from_a_table(losses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fit", str(losses), "--bootstraps", "50") == 0
    said = capsys.readouterr().out
    assert "Law 1, pre-training: 12 points" in said
    assert re.search(r"alpha +0\.34 ", said)
    assert "Law 2" not in said
    assert call("fit", str(losses), "--bootstraps", "0", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["laws"]["pretrain"]["beta"]["value"] == pytest.approx(0.28, rel=1e-5)
    assert len(data["laws"]["pretrain"]["curve"]) > 20
    assert data["refused"] == {}


def test_the_link_from_loss_to_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["parameters,tokens,loss,accuracy"]
    for n in (1e7, 3e7, 1e8, 3e8):
        for d in (1e9, 4e9, 2e10):
            loss = 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28
            rows.append(f"{n:.0f},{d:.0f},{loss:.12f},{1 - 0.8 + 1.4 * np.exp(-0.9 * loss):.12f}")
    path = tmp_path / "t.csv"
    path.write_text("\n".join(rows) + "\n")
    assert call("fit", str(path), "--bootstraps", "20") == 0
    said = capsys.readouterr().out
    assert "Loss to accuracy" in said
    assert re.search(r"gamma +0\.9 ", said)


def test_the_known_entropy_is_met_or_not(losses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fit", str(losses), "--bootstraps", "50", "--entropy", "1.2") == 0
    assert "OUTSIDE the interval of E" in capsys.readouterr().out


def test_a_picture_of_what_was_fitted(losses: Path, counts: Path, tmp_path: Path) -> None:
    picture = tmp_path / "laws.svg"
    assert call("fit", str(losses), str(counts), "--bootstraps", "40", "--picture", str(picture)) == 0
    text = picture.read_text()
    assert "Law 1: what pre-training buys" in text
    assert "Law 3: what more samples buy" in text
    assert call("fit", str(losses), "--bootstraps", "0", "--picture", str(tmp_path / "laws.gif")) == 2


def test_test_time_from_counts(counts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fit", str(counts), "--bootstraps", "60") == 0
    said = capsys.readouterr().out
    assert "Law 3, test time: samples, 60 problems x 16 samples" in said
    assert "pass@160" in said
    assert "extrapolated" in said
    assert "plateau of the vote" in said


def test_two_recipes_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["run,compute,value,questions"]
    for run, top in (("a", 0.8), ("b", 0.6)):
        rows += [f"{run},{c},{0.1 + (top - 0.1) / (1 + (10 / c) ** 1.8):.6f},2000" for c in np.geomspace(1, 200, 24)]
    path = tmp_path / "curves.csv"
    path.write_text("\n".join(rows) + "\n")
    assert call("fit", str(path), "--bootstraps", "100") == 0
    said = capsys.readouterr().out
    assert "Law 2, post-training: a" in said
    assert "a against b:" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none.csv"], "none.csv is neither a run folder nor a CSV file"),
        (["LOSSES", "--law", "laws"], "There is no law 'laws'"),
        (["LOSSES", "--law", "posttrain"], "No law can be fitted"),
        (["LOSSES", "--map", "loss"], "--map is 'loss': write it as NAME=VALUE"),
        (["LOSSES", "--where", "tokens=7"], "has no line that is asked for"),
        (["LOSSES", "--map", "los=loss"], "'los' is no column of a law's table"),
    ],
)
def test_one_sentence_for_what_is_wrong(
    words: list[str], sentence: str, losses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("fit", *(str(losses) if word == "LOSSES" else word for word in words)) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_too_few_points_say_how_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "few.csv"
    path.write_text("parameters,tokens,loss\n1e6,1e7,3\n2e6,1e7,2.9\n")
    assert call("fit", str(path)) == 2
    assert "6" in capsys.readouterr().err


def test_names_from_a_table_show_and_never_act(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\nNot fitted\n\x1b]0;title\x07\u202e" + "x" * 100_000
    rows = [
        "run,compute,value",
        *(f'"{name}",{c:.3f},{0.1 + 0.7 / (1 + 10 / c):.4f}' for c in np.geomspace(1, 200, 12)),
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(rows) + "\n")
    assert call("fit", str(path), "--bootstraps", "0") == 0
    said = capsys.readouterr().out
    assert "Law 2, post-training: a Not fitted" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert max(map(len, said.splitlines())) < 2_100
    path.write_text("run,compute,value\n" + f'"{name}",1,0.5\n' + f'"{name}",2,0.6\n')
    assert call("fit", str(path)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said) < 2_200


def test_two_runs_without_intervals_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        "run,compute,value",
        *(f"{run},{c:.3f},{0.1 + 0.7 / (1 + 10 / c):.4f}" for run in "ab" for c in np.geomspace(1, 200, 12)),
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(rows) + "\n")
    assert call("fit", str(path), "--bootstraps", "0") == 0
    assert "a against b" not in capsys.readouterr().out


def test_a_picture_that_cannot_be_is_known_before_the_fit(
    losses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("trilaw.api.laws.fit", lambda *_, **__: pytest.fail("the fit was run"))
        assert call("fit", str(losses), "--picture", str(tmp_path / "p.gif")) == 2
    assert call("fit", str(losses), "--bootstraps", "0", "--picture", str(losses / "p.svg")) == 1
    said = capsys.readouterr()
    assert "Law 1, pre-training" in said.out, "what was fitted is not lost with its picture"
    assert "cannot be written" in said.err


@pytest.mark.parametrize("entropy", ["nan", "inf", "-1"])
def test_an_entropy_that_cannot_be(entropy: str, losses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fit", str(losses), "--entropy", entropy) == 2
    assert "it must be 0 or a positive number" in capsys.readouterr().err


def test_ctrl_c_ends_a_fit(losses: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A real signal in the middle of the arithmetic."""
    monkeypatch.setattr("trilaw.laws.pretrain._falls", lambda *_: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    try:
        assert call("fit", str(losses), "--bootstraps", "0") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == ("", "Stopped.\n")


def test_what_is_no_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "zero.csv"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path in (pipe, link, tmp_path, Path("/dev/null")):
        assert call("fit", str(path)) == 2
        assert "is neither a run folder nor a CSV file" in capsys.readouterr().err
