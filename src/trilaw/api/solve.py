"""`trilaw.solve`: one question to one model, answered as a stream of text."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from trilaw.api.options import SamplingOptions, merged
from trilaw.core.errors import RequestError
from trilaw.core.protocols import Sampler
from trilaw.core.types import Message, Request, Sample, SamplingParams

if TYPE_CHECKING:
    from trilaw.api.load import Model
    from trilaw.model.loading import Loaded


class Answer:
    """The pieces of one completion as they come; iterate over it. `sample` is there when the iteration has ended.

    Together the pieces are `sample.text`. `close` cancels what still runs when a loop is left early.
    """

    def __init__(self, sampler: Sampler, request: Request, *, thinking: bool = False) -> None:
        """Submit the request. thinking: the prompt has opened a <think> already. Raises RequestError if the sampler refuses it."""
        self.sample: Sample | None = None
        self.thinking = thinking
        self._sampler, self._request = sampler, request
        sampler.submit([request])
        self._pieces = self._stream(sampler, request)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """Cancel what still runs."""
        self._pieces.close()
        if self.sample is None and self._sampler.pending:
            with suppress(Exception):  # the error that ended the stream is the one to hear of
                self._sampler.cancel([self._request.id])
                self._sampler.step()

    def text(self) -> str:
        """The whole completion: waits for the end."""
        for _ in self._pieces:
            pass
        if self.sample is None:
            raise RequestError("The answer was closed before its end.")
        return self.sample.text

    def _stream(self, sampler: Sampler, request: Request) -> Generator[str, None, None]:
        # What may yet be cut as a stop string is held back, as is a character whose bytes are not all there.
        held = max((len(stop) - 1 for stop in request.params.stop), default=0)
        said = ""
        while self.sample is None:
            for sample in sampler.step():
                if sample.request_id == request.id:
                    self.sample = sample
            if self.sample is None:
                text = sampler.partial(request.id).rstrip("\ufffd")
                text = text[: max(0, len(text) - held)]
            else:
                text = self.sample.text
            if len(text) > len(said):
                yield text[len(said) :]
                said = text


def solve(
    model: str | Path | Loaded | Model,
    question: str,
    *,
    params: SamplingParams | None = None,
    seed: int = 0,
    system: str | None = None,
    quantization: str | None = None,
    **options: Unpack[SamplingOptions],
) -> Answer:
    """Ask a model. The chat template applies; `system` goes before the question. quantization: "int8" is faster on a CPU
    and a little off the model. Options: the fields of `params` as keywords.

    Raises RequestError for an empty question or one longer than the model's context, ModelError or SourceError for the model.

        for piece in trilaw.solve("smollm2-135m", "What is 17 + 25?"):
            print(piece, end="", flush=True)
    """
    # in here: torch
    from trilaw.engine.engine import Engine
    from trilaw.model.loading import load

    if not question.strip():
        raise RequestError("The question is empty.")
    loaded = load(model) if isinstance(model, str | Path) else model
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    request = Request("solve", tuple(messages), merged(params, options), seed)
    thinking = loaded.tokenizer.render(messages).rstrip().endswith("<think>")
    ours = isinstance(model, str | Path)  # loaded here, so nobody else needs its weights
    engine = Engine(loaded.model, loaded.tokenizer, quantization=quantization, consume=ours)
    return Answer(engine, request, thinking=thinking)
