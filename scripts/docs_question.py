"""docs/question.md: what R1's efficiency and its thinking do to the chips of an answer and to the total, worked with the planner.

`python scripts/docs_question.py` writes the page; a test compares it with what this script would write. Every number in it is the planner's own, or is
published and named with its source; nothing is forecast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trilaw.api.plan import chip_of, numbers_of, plan_serve, plan_train
from trilaw.planner.anchors import anchor
from trilaw.planner.compare import R1_VOTES, V3_BATCH
from trilaw.planner.datacentre import THINKING, plan_datacentre
from trilaw.planner.r1_zero import r1_zero

PAGE = Path(__file__).parent.parent / "docs" / "question.md"

CHIP, COUNT, LATENCY, PROMPT = "h100", 512, 0.05, 200
BEFORE, CLOSES, SHARES = 142.62, (118.58, 118.42), 24.49e9  # dollars, dollars, shares
AT_ONCE = (
    711  # tokens of GPT-4o on the contests on which R1 thinks for THINKING (arXiv 2501.12948v2, sections E.3 and E.4)
)
SOLVED = {AT_ONCE: 0.247, THINKING: 0.618}  # share of those 366 problems: GPT-4o, R1 (the same sections)
QUESTIONS = (1e6, 1e8, 1e9, 1e10, 1e11, 1e12)
DENSE_HOURS, V3_HOURS = 30.84e6, anchor("v3_gpu_hours").value  # published; the first: model card of Llama 3.1


@dataclass(frozen=True, slots=True)
class World:
    """A way to answer: its training in chip-hours, and an answer of `samples` responses in chip-seconds, dollars and kWh."""

    name: str
    model: str
    tokens: int
    samples: int
    training: float
    chip_seconds: float
    usd: float
    kwh: float

    def total(self, questions: float) -> float:
        """Chip-hours of training and of so many answers."""
        return self.training + questions * self.chip_seconds / 3600

    def serving(self, questions: float) -> float:
        """The answers' share of them."""
        return 1 - self.training / self.total(questions)

    def even(self) -> float:
        """Questions at which answering has taken as much as training."""
        return self.training * 3600 / self.chip_seconds


def worlds() -> list[World]:
    """The dense model that answers at once, the efficient one that does, and the one that thinks, once and with votes."""
    dense = plan_train("llama-3.1-405b", CHIP, 16_384, tokens=15.6e12, context=8192, batch=2048 * 8192)
    v3 = plan_train("deepseek-v3", CHIP, 2048, tokens=anchor("v3_tokens").value, batch=V3_BATCH)
    zero = r1_zero(numbers_of("deepseek-v3"), chip_of(CHIP)).plan
    trained = {
        "llama-3.1-405b": dense.gpu_hours,
        "deepseek-v3": v3.gpu_hours,
        "deepseek-r1": v3.gpu_hours + zero.gpu_hours,
    }
    found = []
    for name, model, tokens, samples in (
        ("dense, at once", "llama-3.1-405b", AT_ONCE, 1),
        ("V3, at once", "deepseek-v3", AT_ONCE, 1),
        ("R1, thinking", "deepseek-r1", THINKING, 1),
        ("R1, vote of 16", "deepseek-r1", THINKING, 16),
        ("R1, vote of 64", "deepseek-r1", THINKING, 64),
    ):
        plan = plan_serve(
            model, CHIP, COUNT, prompt=PROMPT, response=tokens, samples=samples, weight_bits=8, latency=LATENCY
        )
        usd, kwh = plan.request_usd, plan.request_energy_kwh
        assert usd is not None
        assert kwh is not None
        hours = plan.request_gpu_hours
        found.append(World(name, model, tokens * samples, samples, trained[model], hours * 3600, usd, kwh))
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _times(x: float) -> str:
    """How often: "5.9 times", "41 times"."""
    return f"{x:,.0f} times" if x >= 9.95 else f"{x:.2g} times"


def _short(x: float) -> str:
    """Two digits, or whole."""
    return f"{x:,.0f}" if x >= 99.5 else f"{x:.2g}"


def _count(x: float) -> str:
    """1.2e10 as "12 billion"."""
    for word, size in (("trillion", 1e12), ("billion", 1e9), ("million", 1e6)):
        if x >= 0.9995 * size:
            return f"{x / size:.3g} {word}"
    return f"{x:,.0f}"


def _hours(x: float) -> str:
    """Chip-hours with three digits."""
    return f"{x / 1e6:,.3g}M" if x < 1e9 else f"{x / 1e6:,.0f}M"


def market() -> str:
    """What happened on the day, as context."""
    rows = []
    for close in CLOSES:
        lost = (BEFORE - close) * SHARES / 1e9
        rows.append((f"${close:.2f}", f"{100 * (close / BEFORE - 1):.2f} %", f"${lost:.1f}B"))
    return "\n".join(
        [
            f"On 27 January 2025 NVIDIA's share fell from ${BEFORE:.2f} (the close of 24 January) by 16.9 %, and the company was worth close to $600B less. Two closes",
            "are in print, and each goes with its own loss:",
            "",
            _table(("close", "change", f"loss at {SHARES / 1e9:.2f} billion shares"), rows),
            "",
            f"${CLOSES[0]:.2f} is the close that the reports of the day gave (CNBC's among them), ${CLOSES[1]:.2f} the one in later, adjusted tables (Longbridge). Press figures of the loss,",
            "$589B (TipRanks) and $593.7B (Epoch Times), are the two rows. The number of shares is from a third party and unverified.",
        ]
    )


def page() -> str:
    """The whole file."""
    all_ = worlds()
    dense, v3, r1, _, vote64 = all_
    per_token = numbers_of("llama-3.1-405b").flops_per_token(4096, training=True) / numbers_of(
        "deepseek-v3"
    ).flops_per_token(4096, training=True)
    cache = numbers_of("llama-3.1-405b").kv_bytes_per_token() / numbers_of("deepseek-v3").kv_bytes_per_token()
    written = numbers_of("llama-3.1-405b").decode_flops(PROMPT + AT_ONCE / 2) / numbers_of("deepseek-v3").decode_flops(
        PROMPT + AT_ONCE / 2
    )
    if r1.chip_seconds <= dense.chip_seconds:
        raise ValueError(
            "An R1 answer no longer takes more chips than the dense model's: write this page's sentences anew."
        )
    cheaper, longer = dense.chip_seconds / v3.chip_seconds, r1.tokens / v3.tokens
    thinking = r1.chip_seconds / v3.chip_seconds
    crossing = (dense.training - r1.training) * 3600 / (r1.chip_seconds - dense.chip_seconds)
    crossing64 = (dense.training - vote64.training) * 3600 / (vote64.chip_seconds - dense.chip_seconds)
    site = plan_datacentre(capex=anchor("stargate_announced").value)
    reinforced = r1.training - v3.training

    training = _table(
        ("training", "planned, H100 hours", "published", "planned over published"),
        [
            ("Llama 3.1 405B, 15.6T tokens", _hours(dense.training), f"{_hours(DENSE_HOURS)} H100 hours, everything", f"{dense.training / DENSE_HOURS:.2f}"),
            ("DeepSeek-V3, 14.8T tokens", _hours(v3.training), f"{_hours(V3_HOURS)} H800 hours, everything", f"{v3.training / V3_HOURS:.2f}"),
            ("R1's reinforcement learning on it (R1-Zero's)", _hours(reinforced), f"{_hours(anchor('r1_gpu_hours').value)} H800 hours, all of R1", f"{reinforced / anchor('r1_gpu_hours').value:.2f}"),
        ],
    )  # fmt: skip
    answer = _table(
        ("an answer", "tokens written", "chip-seconds", "dollars", "Wh", "against the dense model", "questions for the same chips"),
        [
            (w.name, f"{w.tokens:,}", f"{w.chip_seconds:.3g}", f"{w.usd:.3g}", _short(1000 * w.kwh), f"x {_short(w.chip_seconds / dense.chip_seconds)}", f"x {dense.chip_seconds / w.chip_seconds:.2g}")
            for w in all_
        ],
    )  # fmt: skip
    totals = _table(
        ("questions in the model's life", *(w.name for w in all_)),
        [(_count(q), *(f"{_hours(w.total(q))} ({100 * w.serving(q):.0f} %)" for w in all_)) for q in QUESTIONS],
    )
    ratio = _table(
        ("questions in the model's life", *(w.name for w in all_[1:])),
        [(_count(q), *(f"x {_short(w.total(q) / dense.total(q))}" for w in all_[1:])) for q in QUESTIONS],
    )
    even = _table(
        ("", *(w.name for w in all_)),
        [("questions at which answering has taken as much as training", *(_count(w.even()) for w in all_))],
    )
    daily = _table(
        ("a billion questions a day", "H100 busy around the clock", "share of the $500B site"),
        [
            (w.name, f"{1e9 * w.chip_seconds / 86_400:,.0f}", "" if w.model != "deepseek-r1" else f"{100e9 * w.samples / site.answers_per_day:.2g} %")
            for w in all_
        ],
    )  # fmt: skip
    lengths = []
    for tokens in (2_000, 4_000, 7_000, THINKING, 18_000):
        plan = plan_serve("deepseek-r1", CHIP, COUNT, prompt=PROMPT, response=tokens, weight_bits=8, latency=LATENCY)
        seconds = plan.request_gpu_hours * 3600
        lengths.append((f"{tokens:,}", f"{seconds:.3g}", f"x {seconds / dense.chip_seconds:.2g}"))
    sensitivity = _table(("tokens of an R1 answer", "chip-seconds", "against the dense model"), lengths)

    return f"""# The week's question, worked

Written by `scripts/docs_question.py` with the commands of [planner.md](planner.md).

In the last week of January 2025 an open model reasoned as well as the best closed ones, and its makers put its training at a few million dollars.
Two things were said of what follows for chips. Fewer are needed: the model is trained and run with a tenth of the work. More are needed: it thinks before it answers, so
each answer takes many times the tokens, and cheaper answers are asked for more often. Each is right about one factor. This page computes the factors, and the totals.

## What the market did

{market()}

That is context. Nothing here says what a share is worth, and nothing forecasts one.

## What was compared

Three models on one chip, the H100, so that differences are the models' own. The dense one is Llama 3.1 405B, the open model of the same class from the summer before.

- Training: {per_token:.1f} times fewer FLOPs a token for DeepSeek-V3 than for the dense model ({numbers_of("deepseek-v3").flops_per_token(4096, training=True) / 1e9:,.0f} against {numbers_of("llama-3.1-405b").flops_per_token(4096, training=True) / 1e9:,.0f} GFLOP at 4,096 tokens), and products in FP8.
- Answering: {cache:.1f} times less cache a token, and {written:.1f} times fewer FLOPs a token written.
- Thinking: {THINKING:,} tokens an answer for R1 where GPT-4o writes {AT_ONCE} (366 problems of contests of 2024: R1 solves {100 * SOLVED[THINKING]:.1f} %, GPT-4o {100 * SOLVED[AT_ONCE]:.1f} %; arXiv 2501.12948v2, sections E.3 and E.4).
  How many V3 writes is not published: it is taken to answer at once in as many tokens as GPT-4o.
- Votes: on AIME 2024 R1 solves {100 * R1_VOTES[1]:.1f} % with one sample and {100 * R1_VOTES[64]:.1f} % by the vote of 64 (the same paper).

Serving is on {COUNT} H100 with 8-bit weights, questions of {PROMPT} tokens, at least {1 / LATENCY:.0f} tokens a second for each user. Prices are the planner's, $2.95 an H100-hour.

## Training

{training}

Efficiency is real: the planned ratio of the two trainings is {dense.training / v3.training:.0f}, that of the published hours {DENSE_HOURS / V3_HOURS:.0f}. Published hours contain what the plan has not: restarts, context extension, post-training. Reinforcement
learning adds {100 * reinforced / v3.training:.0f} % to V3's pre-training here, {100 * anchor("r1_gpu_hours").value / V3_HOURS:.0f} % by the published hours; its plan rests on the mean length of a response, which is not published.

## An answer

{answer}

The last column is how many times as many questions keep as many chips busy as the dense model's answers do.

- Efficiency alone: the same answer takes {_times(cheaper)} fewer chip-seconds. If nothing else changed, {_times(cheaper)} as many questions would be needed to keep the chips busy.
- Thinking alone: {longer:.1f} times the tokens, {thinking:.1f} times the chip-seconds.
- Together: an R1 answer takes {r1.chip_seconds / dense.chip_seconds:.1f} times the chips of the dense model's short answer. The efficiency of the week is spent, and more, on the thinking of the week.
- A vote of 64 takes {vote64.chip_seconds / dense.chip_seconds:.0f} times. Test-time scaling has no natural end: its price is linear in the samples, its gain is not ({100 * R1_VOTES[1]:.1f} to {100 * R1_VOTES[64]:.1f} %).
- A solved problem takes {r1.chip_seconds / SOLVED[THINKING] / (v3.chip_seconds / SOLVED[AT_ONCE]):.1f} times the chip-seconds with R1 that it takes a model of V3's cost with GPT-4o's share; but more samples of the latter do not solve what it cannot, and R1 solves {SOLVED[THINKING] / SOLVED[AT_ONCE]:.1f} times as many.

How much depends on how long it thinks (the paper: under 7,000 tokens on easy problems, over 18,000 on the hardest):

{sensitivity}

## The total

Chip-hours of training and of all answers in a model's life, and in brackets the answers' share:

{totals}

Against the dense model at as many questions:

{ratio}

{even}

- Below {_count(crossing)} questions in a model's life, the efficient and thinking model takes fewer chips than the dense one in all, because its training is cheap. Above, it takes more.
- With votes of 64 the point is {_count(crossing64)} questions.
- A model that thinks has spent as much on answers as on training after {_count(r1.even())} questions; the dense model, which costs more to train and less to ask, after {_count(dense.even())}. Thinking moves chips from training to serving.

In chips, for a service that is asked a billion questions a day:

{daily}

The site is the planner's for the $500B that were announced on 21 January 2025 (Stargate), were all of them spent on it: {_count(site.chips)} GB200, {site.watts["IT"] / 1e9:.1f} GW of IT power, {_count(site.answers_per_day)} R1 answers a day (`trilaw plan datacentre --capex 500e9`).

## What follows, and what does not

- "Cheaper training, so fewer chips" holds for training alone, and for a model that few ask.
- "Longer thinking, so more chips" holds for each answer, and the more the more are asked.
- What happened to the total was a matter of how many questions people ask once an answer is better and cheaper. That is a question about people; the table says what each answer to it
  means in chips, and no planner says which one is right.
- How sure: the planner's own errors on deployments like these stand in [planner.md](planner.md). They are tens of per cent, a few rows are off by a factor of two or more. The factors here that decide, {longer:.0f} times the tokens and 64 times
  the samples, are larger than that; the factor {r1.chip_seconds / dense.chip_seconds:.1f} of a single R1 answer is not, and its sign depends on the length of the thinking.
- Left out: research and failed runs, prompts that are cached, the load of nights, better software and better chips since, and other models that learned from this one.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
