"""The tokenizer against transformers (AutoTokenizer, apply_chat_template) and against its own promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from trilaw.core.errors import ModelError, RequestError
from trilaw.core.protocols import Tokenizer as TokenizerProtocol
from trilaw.core.types import Message
from trilaw.model.tokenizer import HFTokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = [*"0123456789+-*=;?\n ", "<think>", "</think>", "ok"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer trained on a few sentences, in a folder as the hub has it."""
    path = tmp_path_factory.mktemp("bpe")
    backend = Tokenizer(models.BPE())
    digits, cut = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, cut])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(
        ["the cat sat on the mat, im_start and im_end", "user assistant system what is the end"] * 4, trainer
    )
    backend.save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHATML,
    }
    config |= {
        "bos_token": "<|im_start|>",
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>"},
        "pad_token": "<|im_end|>",
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    return path


@pytest.fixture(scope="module")
def words() -> HFTokenizer:
    return HFTokenizer.word_level(WORDS, "{{ bos_token + messages[-1]['content'] }}")


def test_meets_the_protocol(words: HFTokenizer) -> None:
    protocol: TokenizerProtocol = words  # the type checker's part of the test
    assert {"vocab_size", "eos_ids", "bos_id", "pad_id"} <= set(vars(protocol))


def test_folder_ids_equal_transformers(folder: Path) -> None:
    from transformers import AutoTokenizer

    ours, theirs = HFTokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.vocab_size == len(theirs)
    assert ours.eos_ids == (2, 0), "the tokenizer's own first, then those of generation_config.json"
    assert ours.pad_id == 2
    assert ours.bos_id is None, "this tokenizer puts nothing before a text"
    for text in ("the cat 123 sat\n\n  on", "<|im_end|>", "naïve 日本 \U0001f600", ""):
        assert ours.encode(text, special=True) == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ours.encode(text)) == text
    messages: list[Message] = [{"role": "system", "content": " be brief "}, {"role": "user", "content": "the cat?"}]
    for generation in (True, False):
        expected = theirs.apply_chat_template(messages, add_generation_prompt=generation, tokenize=False)
        assert ours.render(messages, generation=generation) == expected
        ids = theirs.apply_chat_template(messages, add_generation_prompt=generation, return_dict=False)
        assert ours.encode_chat(messages, generation=generation) == ids


def test_special_names_in_plain_text_stay_text(folder: Path) -> None:
    tokenizer = HFTokenizer.from_folder(folder)
    plain = tokenizer.encode("a<|im_end|>b")
    assert 2 not in plain
    assert tokenizer.decode(plain) == "a<|im_end|>b"
    assert tokenizer.encode("a<|im_end|>b", special=True).count(2) == 1
    assert tokenizer.decode([2], skip_special=True) == ""
    assert tokenizer.decode([2], skip_special=False) == "<|im_end|>"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*SPECIALS, " hi", "\ue000", "\ue001", "im_end|>", "<|", "9"]), max_size=6).map("".join)
)
def test_typed_special_tokens_do_not_become_special(folder: Path, content: str) -> None:
    tokenizer = _cached(folder)
    messages: list[Message] = [{"role": "user", "content": content}]
    ids = tokenizer.encode_chat(messages)
    assert tokenizer.decode(ids, skip_special=False) == tokenizer.render(messages)
    assert ids.count(1) == 2, "the template's own two turns"
    assert ids.count(2) == 1
    assert ids.count(0) == 0


_LOADED: dict[Path, HFTokenizer] = {}


def _cached(folder: Path) -> HFTokenizer:
    return _LOADED.setdefault(folder, HFTokenizer.from_folder(folder))


def test_the_tokens_around_a_typed_special_token_are_those_of_plain_text(folder: Path) -> None:
    tokenizer = HFTokenizer.from_folder(folder)
    content = "the <|im_end|> cat"
    ids = tokenizer.encode_chat([{"role": "user", "content": content}], generation=False)
    assert ids == [1, *tokenizer.encode(f"user\n{content}"), 2, *tokenizer.encode("\n")]


def test_a_role_cannot_smuggle_a_special_token(folder: Path) -> None:
    with pytest.raises(RequestError, match="role"):
        _cached(folder).encode_chat([{"role": "x<|im_end|>", "content": "hi"}])  # type: ignore[typeddict-item]


def test_save_keeps_the_originals_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    HFTokenizer.from_folder(folder).save(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_named_templates_and_the_jinja_file_win_in_that_order(folder: Path, tmp_path: Path) -> None:
    HFTokenizer.from_folder(folder).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert HFTokenizer.from_folder(tmp_path).chat_template == "D"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert HFTokenizer.from_folder(tmp_path).chat_template == "J"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer.json", "{}", "broken"),
        ("tokenizer.json", "\ud800".encode("utf-16", "surrogatepass"), "broken"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", "[]", "one JSON object"),
        ("tokenizer_config.json", '{"eos_token": "<nope>"}', "eos token '<nope>' is not in the vocabulary"),
    ],
)
def test_broken_files_are_one_sentence(
    folder: Path, tmp_path: Path, name: str, content: str | bytes | None, complaint: str
) -> None:
    HFTokenizer.from_folder(folder).save(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=complaint):
        HFTokenizer.from_folder(tmp_path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map("".join))
def test_word_level_is_lossless(words: HFTokenizer, text: str) -> None:
    assert words.decode(words.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_word_level_is_lossless_for_any_words(data: st.DataObject) -> None:
    some = st.text(st.sampled_from("ab.\\[-\n#^ é"), min_size=1, max_size=3)
    vocabulary = data.draw(st.lists(some, min_size=1, max_size=6))
    tokenizer = HFTokenizer.word_level(vocabulary, bos="<s>", eos="</s>")
    text = "".join(data.draw(st.lists(st.sampled_from(vocabulary), max_size=8)))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_word_level_takes_the_longest_word(words: HFTokenizer) -> None:
    assert len(words.encode("<think>1</think>ok")) == 4
    assert words.vocab_size == len(WORDS) + 3


@pytest.mark.parametrize("text", ["x", "1x2", "^", "$", "<unk>", "<pad>"])
def test_word_level_refuses_what_it_cannot_spell(words: HFTokenizer, text: str) -> None:
    with pytest.raises(RequestError, match="cannot be encoded"):
        words.encode(text)
    with pytest.raises(RequestError, match="cannot be encoded"):
        words.encode_chat([{"role": "user", "content": text}])


@pytest.mark.parametrize("bad", [[], [""], ["a$b"], ["^"]])
def test_word_level_refuses_impossible_words(bad: list[str]) -> None:
    with pytest.raises(RequestError, match="word"):
        HFTokenizer.word_level(bad)


def test_word_level_opens_in_transformers(words: HFTokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig

    words.save(tmp_path)
    LlamaConfig(vocab_size=words.vocab_size).save_pretrained(
        tmp_path
    )  # the model's own type must not choose another tokenizer
    theirs, again = AutoTokenizer.from_pretrained(tmp_path), HFTokenizer.from_folder(tmp_path)
    text = "12+3=<think>15</think>15\n"
    assert theirs.encode(text, add_special_tokens=False) == words.encode(text) == again.encode(text)
    assert theirs.decode(words.encode(text)) == text == again.decode(words.encode(text))
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        words.bos_id,
        words.eos_ids[0],
        words.pad_id,
    )
    assert theirs.encode(text) == [words.bos_id, *words.encode(text)], "BOS once, by transformers' default"
    messages: list[Message] = [{"role": "user", "content": "1+2="}]
    assert theirs.apply_chat_template(messages, return_dict=False) == words.encode_chat(messages)
    assert words.encode_chat(messages)[0] == words.bos_id
    assert (again.bos_id, again.eos_ids[0], again.pad_id) == (words.bos_id, words.eos_ids[0], words.pad_id)


def test_batches_equal_singles(words: HFTokenizer) -> None:
    texts = ["1+1=2", "", "ok\n"]
    rows = words.encode_batch(texts)
    assert rows == [words.encode(t) for t in texts]
    assert words.decode_batch(rows) == texts


def test_truncation_and_padding_of_the_file_are_switched_off(folder: Path, tmp_path: Path) -> None:
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(2)
    backend.enable_padding(length=8)
    backend.add_tokens([AddedToken("zzz")])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = HFTokenizer.from_folder(tmp_path)
    assert len(tokenizer.encode("1234567890123")) == 13
    assert tokenizer.encode("1") == tokenizer.encode_batch(["1"])[0]
    assert len(tokenizer.encode("1")) == 1
