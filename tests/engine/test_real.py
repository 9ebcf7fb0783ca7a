"""The engine on real weights: greedy answers of SmolLM2 equal those of transformers, token for token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trilaw.core.protocols import collect
from trilaw.core.types import Message, Request, SamplingParams
from trilaw.engine.engine import Engine
from trilaw.model import hf
from trilaw.model.loading import load

pytestmark = pytest.mark.real

QUESTIONS = (
    "What is the capital of France? Answer in one sentence.",
    "Write a haiku about rain.",
    "What is 17 + 25? Think step by step.",
)
TOKENS = 40


@pytest.fixture(scope="module")
def loaded():
    return load("smollm2-135m", dtype=torch.float32, device="cpu")


def test_greedy_answers_equal_those_of_transformers(loaded, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    hf.save_folder(loaded.model, tmp_path / "model", tokenizer=loaded.tokenizer)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    requests = [
        Request(str(i), (Message(role="user", content=question),), params) for i, question in enumerate(QUESTIONS)
    ]
    samples = collect(Engine(loaded.model, loaded.tokenizer), requests)  # three prompts of unequal length in one batch
    for sample in samples:
        prompt_1T = torch.tensor([sample.prompt_tokens])
        with torch.no_grad():
            out_1T = oracle.generate(
                prompt_1T,
                attention_mask=torch.ones_like(prompt_1T),
                do_sample=False,
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
            )
            logits_TV = oracle(torch.tensor([sample.prompt_tokens + sample.tokens])).logits[0]
        # `min_new_tokens` forbids the end token where `ignore_eos` does not: compare up to where an answer ends
        length = next((i for i, t in enumerate(sample.tokens) if t in loaded.tokenizer.eos_ids), TOKENS)
        assert list(sample.tokens[:length]) == out_1T[0, prompt_1T.shape[1] :].tolist()[:length]
        plain_TV = torch.log_softmax(logits_TV.float(), -1)[prompt_1T.shape[1] - 1 : -1]
        expected = plain_TV.gather(1, torch.tensor(sample.tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=1e-3, rtol=0)
