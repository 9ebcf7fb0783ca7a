"""transformers' `generate` on a rollout: prompts padded on the left to one batch, all samples of a prompt as rows of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from protocol import Answer, Job, rollout, serve
from transformers import AutoModelForCausalLM


def load(job: Job) -> Callable[[int], Answer]:
    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    model = model.to(job["device"]).eval()
    model.generation_config.eos_token_id = None  # end tokens are tokens like any other
    how = {"do_sample": False} if job["greedy"] else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

    def roll(prompts: Sequence[Sequence[int]], samples: int, new: int) -> int:
        T = max(map(len, prompts))
        tokens_PT = torch.tensor([[0] * (T - len(prompt)) + list(prompt) for prompt in prompts], device=job["device"])
        mask_PT = torch.tensor(
            [[0] * (T - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=job["device"]
        )
        more = {"num_return_sequences": samples, "max_new_tokens": new, "pad_token_id": 0}
        with torch.inference_mode():
            made = model.generate(tokens_PT, attention_mask=mask_PT, **how, **more)
        return int(made[:, T:].numel())

    return rollout(job, roll)


if __name__ == "__main__":
    serve(load, "transformers", "torch")
