"""llama.cpp in process on a rollout, by the plain C functions of llama-cpp-python, in the number format of its GGUF file.

Each prompt is read once and its cache copied to the other samples; then all sequences decode in one batch. Sampling is one inverse
CDF in numpy for the whole batch, cheaper than a sampler a sequence.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp as lib
import numpy as np
from protocol import Answer, Job, longest, rollout, rows, serve


class Llama:
    """A context for `sequences` sequences of up to `cells` tokens, each with a cache of its own."""

    def __init__(self, path: str, sequences: int, cells: int, threads: int) -> None:
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}.")
        self.vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        self.width = max(sequences, cells)
        params = lib.llama_context_default_params()
        params.n_ctx = sequences * (-(-cells // 256) * 256)  # shared out evenly between the sequences
        params.n_batch = params.n_ubatch = self.width
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = False  # one cache for all would mask every query against every sequence
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp cannot make a context of this size.")
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(self.width, 0, 1)
        self._fields = {
            name: np.ctypeslib.as_array(getattr(self._batch, name), (self.width,))
            for name in ("token", "pos", "n_seq_id", "logits")
        }
        self._fields["n_seq_id"][:] = 1

    def forget(self) -> None:
        lib.llama_memory_clear(self._memory, True)

    def copy(self, source: int, target: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def decode(self, tokens: Any, positions: Any, sequences: Sequence[int], wanted: Any) -> np.ndarray:
        """Logits [wanted tokens, V] of one batch; they live until the next one."""
        n = self._batch.n_tokens = len(tokens)
        for name, values in (("token", tokens), ("pos", positions), ("logits", wanted)):
            self._fields[name][:n] = values
        for i, sequence in enumerate(sequences):
            self._batch.seq_id[i][0] = sequence
        if status := lib.llama_decode(self._context, self._batch):
            raise RuntimeError(f"llama_decode failed with status {status}.")
        shape = int(np.count_nonzero(self._fields["logits"][:n])), self.vocab_size
        logits: np.ndarray = np.ctypeslib.as_array(lib.llama_get_logits(self._context), shape)
        return logits


def load(job: Job) -> Callable[[int], Answer]:
    if job["gguf"] is None:
        raise NotImplementedError("it reads GGUF files, and the model is a folder: give a .gguf file as --model.")
    silent = lib.llama_log_callback(lambda level, text, data: None)
    lib.llama_log_set(silent, ctypes.c_void_p(0))
    load.keep = silent  # type: ignore[attr-defined]  # C calls it as long as this process lives
    llama = Llama(job["gguf"], rows(job), longest(job), job["threads"])
    random = np.random.default_rng(0)

    def pick(logits_BV: np.ndarray) -> np.ndarray:
        if job["greedy"]:
            return logits_BV.argmax(axis=1)
        weight_BV = np.exp(logits_BV - logits_BV.max(axis=1, keepdims=True))
        mass_BV = np.cumsum(weight_BV, axis=1, out=weight_BV)
        aim_B1 = random.random((len(mass_BV), 1), dtype=np.float32) * mass_BV[:, -1:]
        return np.minimum((mass_BV <= aim_B1).sum(axis=1), mass_BV.shape[1] - 1)

    def roll(prompts: Sequence[Sequence[int]], samples: int, new: int) -> int:
        llama.forget()
        first = []
        for place, prompt in enumerate(prompts):
            n, home = len(prompt), place * samples
            last = np.arange(n) == n - 1
            first.append(llama.decode(prompt, np.arange(n), [home] * n, last).copy())
            for other in range(home + 1, home + samples):
                llama.copy(home, other)
        lengths_B = np.repeat([len(prompt) for prompt in prompts], samples)
        token_B = pick(np.repeat(np.concatenate(first), samples, axis=0))
        for step in range(new - 1):
            token_B = pick(llama.decode(token_B, lengths_B + step, range(len(token_B)), 1))
        return len(token_B) * new

    return rollout(job, roll)


if __name__ == "__main__":
    serve(load, "llama-cpp-python")
