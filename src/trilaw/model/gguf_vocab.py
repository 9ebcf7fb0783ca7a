"""A `tokenizers` backend built from the vocabulary in a GGUF file (keys `tokenizer.ggml.*`).

Two kinds are known. "gpt2": byte-level BPE with merges, cut beforehand by the pattern that `tokenizer.ggml.pre` names. "llama":
SentencePiece BPE with byte fallback, which stores no merges: SentencePiece joins the pair whose joined piece scores highest, so
ranking every split of every piece by the piece's score gives the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from trilaw.core.errors import ModelError, nearest

LONGEST = 1024  # characters of a token; what SentencePiece's merges take to find grows with the square, and real tokens have up to 256
UNKNOWN, CONTROL, USER, BYTE = 2, 3, 4, 6  # values of tokenizer.ggml.token_type (1: normal, 5: unused)

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How `tokenizer.ggml.pre` cuts text: digits one by one before GPT-2's own pattern, GPT-2's pattern alone, or a pattern.
PRE: dict[str, str] = {
    "smollm": "digits",
    "starcoder": "digits",
    "gpt-2": "gpt-2",
    "gpt2": "gpt-2",
    "llama-bpe": _WORDS % "{1,3}",
    "llama3": _WORDS % "{1,3}",
    "qwen2": _WORDS % "",
    "deepseek-r1-qwen": _WORDS % "",
}


def build(metadata: Mapping[str, Any], where: str) -> tuple[Tokenizer, dict[str, str], tuple[int, ...]]:
    """The backend, the texts of its named tokens (bos, eos, pad, unk), and the ids that end a sample.

    Raises ModelError for a missing or malformed key, or a kind of vocabulary that is not supported.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise ModelError(
            f"{where} holds no vocabulary (tokenizer.ggml.tokens): convert the model again with its tokenizer."
        )
    if len(set(tokens)) < len(tokens):
        raise ModelError(f"{where}: the vocabulary names a token twice: convert the model again.")
    if max(map(len, tokens)) > LONGEST:
        raise ModelError(
            f"{where}: a token of the vocabulary has over {LONGEST:,} characters: convert the model again."
        )
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if not isinstance(types, list) or len(types) != len(tokens):
        raise ModelError(f"{where} holds no type for each token (tokenizer.ggml.token_type): convert the model again.")
    kind = metadata.get("tokenizer.ggml.model")
    named = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(index, int) and 0 <= index < len(tokens):
            named[role] = tokens[index]
    try:
        if kind == "gpt2":
            backend, adds_bos = (
                _byte_level(metadata, tokens, where),
                metadata.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3"),
            )
        elif kind == "llama":
            backend, adds_bos = _sentencepiece(metadata, tokens, named.get("unk"), where), True
        else:
            name = str(kind)[:40]
            raise ModelError(
                f"{where}: the vocabulary kind '{name}' is not supported{nearest(name, ('gpt2', 'llama'))}."
            )
        control = [t for t, k in zip(tokens, types) if k == CONTROL or (k == UNKNOWN and kind == "llama")]
        user = [t for t, k in zip(tokens, types) if k == USER]
        backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
        backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in user])
        if metadata.get("tokenizer.ggml.add_bos_token", adds_bos) and "bos" in named:
            bos = named["bos"]
            single, pair = [bos, "$A"], [bos, "$A", "$B"]
            backend.post_processor = processors.Sequence(
                [backend.post_processor] * (backend.post_processor is not None)
                + [processors.TemplateProcessing(single, pair, [(bos, backend.token_to_id(bos))])]
            )
    except ModelError:
        raise
    except Exception as error:  # the library raises nothing more specific
        raise ModelError(f"{where}: the vocabulary is broken: {error}; fetch the model again.") from None
    ends = (metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom"))
    return backend, named, tuple(i for i in ends if isinstance(i, int))


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str], where: str) -> Tokenizer:
    pre = metadata.get("tokenizer.ggml.pre")
    if pre not in PRE:
        name = str(pre)[:40]
        raise ModelError(
            f"{where}: the pre-tokenizer '{name}' is not supported{nearest(name, PRE)}; use the model in Hugging Face layout."
        )
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise ModelError(
            f"{where} holds no merges (tokenizer.ggml.merges): convert the model again with its tokenizer."
        )
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Llama 3 takes a piece that is a token as it is, even where merges would not lead to it.
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre in ("llama-bpe", "llama3")))
    if PRE[pre] in ("digits", "gpt-2"):
        digits = [pre_tokenizers.Digits(individual_digits=True)] if PRE[pre] == "digits" else []
        steps = [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    else:
        steps = [
            pre_tokenizers.Split(Regex(PRE[pre]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str], unknown: str | None, where: str) -> Tokenizer:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ModelError(
            f"{where} holds no score for each token (tokenizer.ggml.scores): convert the model again with its tokenizer."
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    ranked: list[tuple[float, int, str, str]] = []
    for token, score in zip(tokens, scores):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((-float(score), vocabulary[token], left, right))
    ranked.sort(key=lambda entry: entry[:2])
    pairs = [(left, right) for _, _, left, right in ranked]
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    backend.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("▁")] if prefix else []), normalizers.Replace(" ", "▁")]
    )
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return backend
