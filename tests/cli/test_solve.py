"""`trilaw solve`: streaming, dimming, cancelling. The engine is a double that writes one character a step."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import trilaw.api.solve as api
from trilaw.api.solve import Answer
from trilaw.cli.main import build
from trilaw.cli.solve import DIM, PLAIN, dimmed
from trilaw.core.errors import RequestError
from trilaw.core.types import Request, Sample, SamplingParams, Usage


class Typist:
    """Writes `text` one byte a step."""

    def __init__(self, text: str, stop: str = "stop", cut: int | None = None) -> None:
        self.weights_version = 0
        self.data, self.final, self.stop = text.encode(), text[:cut], stop
        self.at, self.request, self.cancelled = 0, None, False

    def submit(self, requests):
        [self.request] = requests

    def step(self):
        self.at += 1
        if self.at < len(self.data) and not self.cancelled:
            return []
        stop = "cancelled" if self.cancelled else self.stop
        sample = Sample(
            self.request.id, (1, 2), tuple(self.data), self.final, (), stop, 0, Usage(2, 0, len(self.data), 2.0, 8.0)
        )
        self.request = None
        return [sample]

    def cancel(self, ids):
        assert self.request is not None
        assert list(ids) == [self.request.id]
        self.cancelled = True

    def partial(self, request_id):
        return self.data[: self.at].decode(errors="replace")

    @property
    def pending(self):
        return int(self.request is not None)


def ask(typist: Typist, **options) -> Answer:
    return Answer(typist, Request("q", "?", SamplingParams(**options)))


def test_the_pieces_are_the_text():
    answer = ask(Typist("héllo ✓ wörld"))
    pieces = list(answer)
    assert "".join(pieces) == "héllo ✓ wörld" == answer.sample.text
    assert len(pieces) > 5
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_stop_string_is_never_shown():
    answer = ask(Typist("one two END", cut=8), stop=("END",))
    assert "".join(answer) == "one two "


def test_leaving_early_cancels():
    typist = Typist("a long answer")
    answer = ask(typist)
    assert next(iter(answer)) == "a"
    answer.close()
    assert typist.cancelled
    assert typist.pending == 0
    with pytest.raises(RequestError):
        answer.text()


def test_ctrl_c_inside_a_step_cancels(monkeypatch):
    typist = Typist("a long answer")
    answer = ask(typist)
    pieces = iter(answer)
    next(pieces)
    plain = typist.step

    def interrupted():
        monkeypatch.setattr(typist, "step", plain)
        raise KeyboardInterrupt

    monkeypatch.setattr(typist, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(pieces)
    answer.close()
    assert typist.pending == 0


def test_closing_an_answer_that_nobody_read_frees_the_sampler():
    typist = Typist("a long answer")
    ask(typist).close()
    assert typist.pending == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_dimming(size):
    text = "so <think>2+2 < 5</think> it is <b>4</b> <thi"
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(dimmed(pieces)) == f"so {DIM}<think>2+2 < 5</think>{PLAIN} it is <b>4</b> <thi"


def test_dimming_when_the_prompt_opened_the_thinking_or_it_never_ends():
    assert "".join(dimmed(["a</thi", "nk>b"], thinking=True)) == f"{DIM}a</think>{PLAIN}b"
    assert "".join(dimmed(["<think>", "a"])) == f"{DIM}<think>a{PLAIN}"


@pytest.fixture
def typist(monkeypatch):
    typist = Typist("<think>x</think>It is 4.")
    seen: dict = {}

    def solve(model, question, *, params, seed, system, quantization):
        seen.update(model=model, question=question, params=params, seed=seed, system=system, quantization=quantization)
        return Answer(typist, Request("solve", question, params, seed))

    monkeypatch.setattr(api, "solve", solve)
    typist.seen = seen
    return typist


def run(*words: str, **options):
    return CliRunner().invoke(build(), ["solve", *words], catch_exceptions=False, **options)


def test_text_on_stdout_and_cost_on_stderr(typist):
    done = run("m", "2+2?", "--system", "Be brief.", "--max-tokens", "50", "--seed", "9")
    assert done.exit_code == 0
    assert done.stdout == "<think>x</think>It is 4.\n"
    assert done.stderr == "24 tokens in 2.0 s, 12 tokens/s\n"
    assert typist.seen == {
        "model": "m",
        "question": "2+2?",
        "params": SamplingParams(max_tokens=50),
        "seed": 9,
        "system": "Be brief.",
        "quantization": None,
    }


def test_question_from_stdin_and_json(typist):
    done = run("m", "-", "--json", input="2+2?\n")
    out = json.loads(done.stdout)
    assert (out["question"], out["text"], out["stop"]) == ("2+2?", "<think>x</think>It is 4.", "stop")
    assert out["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 24,
        "seconds": 2.0,
        "tokens_per_second": 12.0,
        "flops": 8.0,
    }


def test_a_cut_answer_says_so(typist):
    typist.stop = "length"
    assert "cut off at --max-tokens 24" in run("m", "q", "--max-tokens", "24").stderr
    assert "cut off: the model's context is full" in run("m", "q").stderr


def test_what_a_terminal_would_obey_is_shown_and_not_sent(typist):
    text = "a\x1b[31mb\x00c\u202ed"
    typist.data, typist.final = text.encode(), text
    assert run("m", "q").stdout == "a\ufffd[31mb\ufffdc\ufffdd\n"
    assert json.loads(run("m", "q", "--json").stdout)["text"] == text


def test_contradictory_options_are_refused_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr(api, "solve", lambda *words, **options: pytest.fail("the model was asked"))
    for words in (("--temperature", "0", "--top-p", "0.5"), ("--stop", ""), ("--temperature", "inf")):
        with pytest.raises(RequestError, match="options do not hold"):
            run("m", "q", *words)


def test_an_empty_question_is_refused():
    with pytest.raises(RequestError, match="empty"):
        api.solve("m", "  ")
