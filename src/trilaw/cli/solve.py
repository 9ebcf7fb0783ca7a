"""`trilaw solve`: a question to a model, its answer as it comes.

The text goes to stdout, the closing line to stderr. On a terminal what stands between <think> and </think> is dim. Control characters
of the model's text are not passed on (cli.terminal says why); --json has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Annotated

import typer

from trilaw.cli import sampling
from trilaw.cli.terminal import say, styled
from trilaw.core import ledger
from trilaw.reports import words

DIM, PLAIN = "\x1b[2m", "\x1b[0m"


def solve_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A catalogue name, a folder, a .gguf file, a run folder, or owner/name on the hub."
        ),
    ],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask; `-` reads it from stdin.")],
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system message to put before the question.")
    ] = None,
    temperature: sampling.Temperature = 1.0,
    top_p: sampling.TopP = 1.0,
    top_k: sampling.TopK = 0,
    min_p: sampling.MinP = 0.0,
    max_tokens: sampling.MaxTokens = 512,
    seed: sampling.Seed = 0,
    stop: sampling.Stop = None,
    quantization: sampling.Quantization = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
) -> None:
    """Ask a model a question."""
    # in here: this brings in torch, which `trilaw --help` should not wait for
    from trilaw.api.solve import solve

    text = sys.stdin.read() if question == "-" else question
    params = sampling.params(temperature, top_p, top_k, min_p, max_tokens, stop)
    answering = solve(model, text.strip(), params=params, seed=seed, system=system, quantization=quantization)
    with closing(answering) as answer:
        pieces = map(words.clean, answer)
        dim = styled(sys.stdout) and not json_
        for piece in dimmed(pieces, thinking=answer.thinking) if dim else pieces:
            if not json_:
                sys.stdout.write(piece)
                sys.stdout.flush()
    sample = answer.sample
    assert sample is not None  # the loop has run to its end
    usage = sample.usage
    speed = usage.completion_tokens / usage.seconds if usage.seconds > 0 else 0.0
    if json_:
        record = {
            "version": 1,
            "model": model,
            "question": text.strip(),
            "text": sample.text,
            "stop": sample.stop,
            "seed": seed,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "seconds": usage.seconds,
                "tokens_per_second": speed,
                "flops": usage.flops,
            },
        }
        typer.echo(json.dumps(record, indent=2))
        return
    typer.echo("" if sample.text.endswith("\n") else "\n", nl=False)
    cut = ""
    if sample.stop == "length":
        full = usage.completion_tokens < max_tokens
        cut = ", cut off: the model's context is full" if full else f", cut off at --max-tokens {max_tokens}"
    tokens = "token" if usage.completion_tokens == 1 else "tokens"
    took = f"{ledger.count(usage.completion_tokens)} {tokens} in {ledger.duration(usage.seconds)}"
    say(f"{took}, {ledger.count(speed)} tokens/s{cut}", err=True)


def dimmed(pieces: Iterable[str], *, thinking: bool = False) -> Iterator[str]:
    """The pieces, with terminal codes that dim the thinking. A tag that is cut between pieces waits for its rest."""
    waiting = ""
    if thinking:
        yield DIM
    for piece in pieces:
        waiting += piece
        while True:
            tag = "</think>" if thinking else "<think>"
            before, found, after = waiting.partition(tag)
            if not found:
                break
            yield before + (tag + PLAIN if thinking else DIM + tag)
            thinking, waiting = not thinking, after
        kept = next((n for n in range(len(tag) - 1, 0, -1) if waiting.endswith(tag[:n])), 0)
        if len(waiting) > kept:
            yield waiting[: len(waiting) - kept]
            waiting = waiting[len(waiting) - kept :]
    yield waiting + (PLAIN if thinking else "")
