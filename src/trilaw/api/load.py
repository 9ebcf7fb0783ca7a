"""Models in Python: load one, sample from it, find or fetch its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

from trilaw.api.options import SamplingOptions, merged
from trilaw.core.arch import Arch
from trilaw.core.protocols import collect
from trilaw.core.seeds import derive
from trilaw.core.types import Message, Problem, Prompt, Request, Sample, SamplingParams

if TYPE_CHECKING:
    from trilaw.engine.engine import Engine
    from trilaw.model.llama import CausalLM
    from trilaw.model.tokenizer import HFTokenizer

Prompts = str | Problem | Sequence[Message] | Sequence[str | Problem | Sequence[Message]]


@dataclass(frozen=True)
class Model:
    """A loaded model: its weights and an engine that samples from them, its tokenizer, and the numbers of its architecture."""

    name: str
    path: Path  # the folder or file that the name led to
    model: CausalLM
    arch: Arch
    tokenizer: HFTokenizer
    engine: Engine

    def sample(
        self,
        prompts: Prompts,
        n: int = 1,
        params: SamplingParams | None = None,
        *,
        seed: int = 0,
        **options: Unpack[SamplingOptions],
    ) -> list[Sample]:
        """`n` completions of each prompt, in order: those of the first prompt first.

        A str is a user's message (the chat template applies), a Problem asks itself, a list of messages is one conversation. How to
        draw is said by `params` or by its fields as keywords. The same arguments give the same samples. Raises RequestError for a
        prompt longer than the model's context.

            model = trilaw.load("runs/tiny")
            for sample in model.sample("What is 17 + 25?", n=4, max_tokens=100):
                print(sample.text)
        """
        asked = _each(prompts)
        params = merged(params, options)
        requests = [
            Request(id=f"{p}/{i}", prompt=conversation(prompt), params=params, seed=derive(seed, p, i, "sample"))
            for p, prompt in enumerate(asked)
            for i in range(n)
        ]
        return collect(self.engine, requests)


def _each(prompts: Prompts) -> list[str | Problem | Sequence[Message]]:
    """The prompts one by one: a list of messages is one prompt."""
    if isinstance(prompts, str | Problem):
        return [prompts]
    if prompts and isinstance(prompts[0], dict):
        return [cast(Sequence[Message], prompts)]
    return list(cast(Sequence[str | Problem | Sequence[Message]], prompts))


def conversation(prompt: str | Problem | Sequence[Message]) -> Prompt:
    """What a person may give as a prompt, as messages."""
    if isinstance(prompt, Problem):
        return prompt.messages
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    return tuple(prompt)


def load(name: str | Path, *, quantization: str | None = None) -> Model:
    """Load a model by catalogue name, folder, .gguf file, run folder (`runs/tiny`, `runs/tiny#base`) or hub name (`owner/name`).

    quantization: "int8" lets the engine sample with 8-bit matrix products: faster on a CPU, and a little off the model.
    Raises RequestError for an unknown name or format, SourceError if it cannot be fetched, ModelError if its files are broken.

        model = trilaw.load("smollm2-135m")
        print(model.arch.parameters())
    """
    from trilaw.engine.engine import Engine  # torch: only when a model is loaded
    from trilaw.model.loading import load as load_model

    loaded = load_model(name)
    engine = Engine(loaded.model, loaded.tokenizer, quantization=quantization)
    return Model(str(name), loaded.path, loaded.model, loaded.arch, loaded.tokenizer, engine)


def sample(
    model: str | Path | Model,
    prompts: Prompts,
    n: int = 1,
    params: SamplingParams | None = None,
    *,
    seed: int = 0,
    **options: Unpack[SamplingOptions],
) -> list[Sample]:
    """`n` completions of each prompt, by a model or the name of one (see `Model.sample`).

    print(trilaw.sample("runs/tiny", "36 *2 +8 -3", temperature=0.7, max_tokens=100)[0].text)
    """
    return (model if isinstance(model, Model) else load(model)).sample(prompts, n, params, seed=seed, **options)


def resolve(name: str) -> Path:
    """The folder or .gguf file that a model's name stands for, fetched if need be.

    Raises RequestError for an unknown name, SourceError if it cannot be fetched.

        print(trilaw.resolve("runs/tiny#base"))
    """
    from trilaw.model import sources

    return sources.resolve(name)


def pull(name: str) -> Path:
    """Fetch a model into the cache, and say where it lies. Nothing is fetched twice.

    Raises RequestError for an unknown name, SourceError if no source has it.

        trilaw.pull("smollm2-135m")
    """
    from trilaw.model import sources

    return sources.pull(name)
