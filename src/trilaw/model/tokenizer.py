"""The tokenizer: Hugging Face's `tokenizers` library behind the house's `Tokenizer` protocol.

It comes from a folder (tokenizer.json and its companions), from the metadata of a GGUF file, or from a list of words (the
lossless word-level tokenizer of models trained from nothing). It is the one place where a conversation becomes a prompt.

Two backends hold the same vocabulary: one reads the names of special tokens as special tokens, the other as plain text. The
switch between the two is state of the library's object, so one object for both would not be safe between threads.

Convention: `bos_id` is the token that a raw text starts with. A tokenizer that names a BOS token but puts none before a text
(SmolLM2: its "BOS" opens a chat turn) has `bos_id` None; templates still get the name as `bos_token`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from trilaw.core.errors import ModelError, RequestError
from trilaw.core.types import Message
from trilaw.model import chat

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "tokenizer.model")
NAMED = ("bos", "eos", "pad", "unk")
PRIVATE = range(0xE000, 0xF8FF)  # Unicode's private use area: code points with no meaning of their own


class HFTokenizer:
    """Text to token ids and back. Immutable after construction, and safe to share between threads."""

    vocab_size: int
    eos_ids: tuple[int, ...]
    bos_id: int | None
    pad_id: int

    def __init__(
        self,
        backend: Tokenizer,
        *,
        named: Mapping[str, str],
        eos_ids: Sequence[int] = (),
        chat_template: str | None = None,
        files: Mapping[str, bytes] | None = None,
        where: str = "tokenizer",
    ) -> None:
        """backend: owned by this object from now on. named: texts of the tokens "bos", "eos", "pad", "unk", as far as there are any.
        eos_ids: more ids that end a sample. files: the originals, which `save` then writes byte for byte.

        Raises ModelError for a named token that is not in the vocabulary.
        """
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        self._backend = backend
        self._files = dict(files or {})
        self.named = dict(named)
        self.chat_template = chat_template
        ids = {}
        for role, text in named.items():
            token = backend.token_to_id(text)
            if token is None:
                raise ModelError(f"{where}: the {role} token '{text}' is not in the vocabulary.")
            ids[role] = token
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        own = [ids["eos"]] if "eos" in ids else []
        self.eos_ids = tuple(dict.fromkeys([*own, *(i for i in eos_ids if 0 <= i < self.vocab_size)]))
        self.pad_id = ids.get("pad", self.eos_ids[0] if self.eos_ids else 0)
        first = backend.encode("").ids[:1]
        self.bos_id = ids["bos"] if "bos" in ids and first == [ids["bos"]] else None
        self._special = {i: t.content for i, t in backend.get_added_tokens_decoder().items() if t.special}

    @classmethod
    def from_folder(cls, path: str | Path) -> HFTokenizer:
        """Read tokenizer.json and what lies beside it; end tokens of generation_config.json and config.json all end a sample.

        Raises ModelError if a file is missing or broken.
        """
        folder = Path(path)
        try:
            files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        except OSError as error:
            raise ModelError(f"{folder}: the tokenizer cannot be read: {error.strerror}.") from None
        if "tokenizer.json" not in files:
            raise ModelError(
                f"{folder} has no tokenizer.json: only tokenizers in that format are supported; save it with transformers' fast tokenizer."
            )
        backend = _parse(files["tokenizer.json"], str(folder / "tokenizer.json"))
        config = _table(files.get("tokenizer_config.json"), folder / "tokenizer_config.json")
        fallback = _table(files.get("special_tokens_map.json"), folder / "special_tokens_map.json")
        named = {}
        for role in NAMED:
            token = config.get(f"{role}_token") or fallback.get(f"{role}_token")
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str) and (role == "eos" or backend.token_to_id(text) is not None):
                named[role] = text
        eos: list[int] = []
        for name in ("generation_config.json", "config.json"):
            file = folder / name
            value = _table(file.read_bytes() if file.is_file() else None, file).get("eos_token_id")
            eos += [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)]
        template = config.get("chat_template")
        if isinstance(template, list):
            entries = {e.get("name"): e.get("template") for e in template if isinstance(e, dict)}
            template = entries.get("default") or next(iter(entries.values()), None)
        if "chat_template.jinja" in files:
            template = files["chat_template.jinja"].decode("utf-8", errors="replace")
        if not isinstance(template, str):
            template = None
        return cls(backend, named=named, eos_ids=eos, chat_template=template, files=files, where=str(folder))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], where: str = "the GGUF file") -> HFTokenizer:
        """Build it from a GGUF file's key-value pairs (`tokenizer.ggml.*`, `tokenizer.chat_template`).

        Raises ModelError for a missing key or a kind of vocabulary that is not supported.
        """
        from trilaw.model.gguf_vocab import build

        backend, named, eos_ids = build(metadata, where)
        template = metadata.get("tokenizer.chat_template")
        template = template if isinstance(template, str) else None
        return cls(backend, named=named, eos_ids=eos_ids, chat_template=template, where=where)

    @classmethod
    def word_level(
        cls, words: Sequence[str], chat_template: str | None = None, bos: str = "^", eos: str = "$", pad: str = "<pad>"
    ) -> HFTokenizer:
        """One token a word; text is cut into words from left to right, the longest that fits first.

        decode(encode(x)) == x for every concatenation of words. Other text is refused (RequestError), never replaced. Where words
        overlap (the end of one begins another), greedy cutting could strand a rest, so their single characters become words too.
        Raises RequestError for an empty word or one that contains a special token.
        """
        vocabulary = list(dict.fromkeys(words))
        specials = [pad, bos, eos]
        for word in vocabulary:
            if not word or any(special in word for special in specials):
                raise RequestError(
                    f"The word {word!r} cannot be in a word-level vocabulary: a word is not empty and contains none of {specials}."
                )
        if not vocabulary:
            raise RequestError("A word-level vocabulary needs at least one word.")
        starts = {w[:n] for w in vocabulary for n in range(1, len(w))}
        if any(w[n:] in starts for w in vocabulary for n in range(1, len(w))):
            vocabulary = list(dict.fromkeys([*vocabulary, *sorted({c for w in vocabulary for c in w})]))
        backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
        longest_first = sorted(vocabulary, key=lambda w: (-len(w), w))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")
        backend.decoder = decoders.Fuse()
        # Special tokens stay out of the model's own vocabulary: typed as plain text, they are unknown words and refused.
        backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
        begin = [(bos, backend.token_to_id(bos))]
        backend.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A $B", begin)
        return cls(backend, named={"bos": bos, "eos": eos, "pad": pad}, chat_template=chat_template)

    @cached_property
    def _plain(self) -> Tokenizer:
        """The same vocabulary, reading the names of special tokens as plain text."""
        plain = Tokenizer.from_str(self._backend.to_str())
        plain.encode_special_tokens = True
        return plain

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids without BOS; names of special tokens inside `text` count as plain text unless `special`.

        Raises RequestError for text that the vocabulary cannot spell.
        """
        return self.encode_batch([text], special=special)[0]

    def encode_batch(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        backend = self._backend if special else self._plain
        try:
            return [e.ids for e in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        except Exception:  # the library raises nothing more specific
            raise RequestError(self._unspellable(texts, special)) from None

    def _unspellable(self, texts: Sequence[str], special: bool) -> str:
        backend = self._backend if special else self._plain
        for text in texts:
            for character in dict.fromkeys(text):
                try:
                    backend.encode(character, add_special_tokens=False)
                except Exception:  # nothing more specific, as above: this is the character that it cannot spell
                    excerpt = text if len(text) <= 40 else text[:37] + "..."
                    return f"The text {excerpt!r} cannot be encoded: {character!r} is not in this model's vocabulary; use only its words."
        return "A text cannot be encoded: it holds a word that is not in this model's vocabulary; use only its words."

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        return str(self._backend.decode(list(tokens), skip_special_tokens=skip_special))

    def decode_batch(self, rows: Sequence[Sequence[int]], *, skip_special: bool = True) -> list[str]:
        return list(self._backend.decode_batch([list(row) for row in rows], skip_special_tokens=skip_special))

    def render(self, messages: Sequence[Message], *, generation: bool = True) -> str:
        """The prompt text by the chat template (without one: the contents joined by newlines).

        Raises ModelError for a template that fails or does too much, RequestError when the template refuses the conversation.
        """
        names = {f"{role}_token": text for role, text in self.named.items()}
        return chat.render(self.chat_template, messages, names, generation=generation)

    def encode_chat(self, messages: Sequence[Message], *, generation: bool = True) -> list[int]:
        """The prompt's token ids, equal to those of transformers' apply_chat_template.

        A special token typed by a user stays plain text. Such texts are replaced by placeholders while the template renders; then
        the prompt is cut at the template's own special tokens, and the pieces between are encoded as plain text.
        """
        if any(t in m["role"] for t in self._special.values() for m in messages):
            raise RequestError("A message's role holds a special token: it must be 'system', 'user' or 'assistant'.")
        found = [t for t in self._special.values() if any(t in m["content"] for m in messages)]
        if not found:
            return self.encode(self.render(messages, generation=generation), special=True)
        taken = "".join(m["content"] for m in messages) + (self.chat_template or "")
        longest_first = sorted(found, key=lambda t: (-len(t), t))
        hidden = dict(zip(longest_first, (chr(c) for c in PRIVATE if chr(c) not in taken)))
        if len(hidden) < len(found):
            raise RequestError(
                "The conversation uses nearly all private-use characters of Unicode and special tokens as well: remove either."
            )
        typed = re.compile("|".join(map(re.escape, longest_first)))
        veiled: list[Message] = [
            {"role": m["role"], "content": typed.sub(lambda match: hidden[match[0]], m["content"])} for m in messages
        ]
        rendered = self.render(veiled, generation=generation)
        by_text = {text: i for i, text in self._special.items()}
        cut = re.compile("(" + "|".join(re.escape(t) for t in sorted(by_text, key=lambda t: (-len(t), t))) + ")")
        shown = re.compile("|".join(map(re.escape, hidden.values())))
        back = {veil: text for text, veil in hidden.items()}
        ids: list[int] = []
        for index, piece in enumerate(cut.split(rendered)):
            if index % 2:
                ids.append(by_text[piece])
            elif piece:
                ids += self.encode(shown.sub(lambda match: back[match[0]], piece))
        return ids

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files so that transformers' AutoTokenizer opens the folder and agrees; originals byte for byte."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name, data in (self._files or self._generated()).items():
            (target / name).write_bytes(data)

    def _generated(self) -> dict[str, bytes]:
        tokens = {f"{role}_token": text for role, text in self.named.items()}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "add_bos_token": self.bos_id is not None,
            **tokens,
        }
        files = {
            "tokenizer.json": self._backend.to_str(pretty=True),
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
            "special_tokens_map.json": json.dumps(tokens, indent=2, ensure_ascii=False) + "\n",
        }
        if self.chat_template is not None:
            files["chat_template.jinja"] = self.chat_template
        return {name: text.encode() for name, text in files.items()}


def _parse(data: bytes, where: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises nothing more specific
        raise ModelError(f"{where} is broken: {error}; fetch the model again.") from None


def _table(data: bytes | None, where: Path) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not valid JSON: {error}; fetch the model again.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{where} must hold one JSON object.")
    return value
