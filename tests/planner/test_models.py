"""The catalogue against published sizes, against transformers at full size, and against the errors that calculators share."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, RequestError
from trilaw.core.numbers import Numbers
from trilaw.planner.memory import PRECISIONS
from trilaw.planner.models import catalogue, model, published, source

B = 10**9
# Published total and active parameters; each is met to within one unit of the last digit that the source gives.
PUBLISHED = [
    ("llama-7b", 6.7, None, 0.1, "arXiv 2302.13971, table 2"),
    ("llama-13b", 13.0, None, 0.1, "arXiv 2302.13971, table 2"),
    ("llama-33b", 32.5, None, 0.1, "arXiv 2302.13971, table 2"),
    ("llama-65b", 65.2, None, 0.1, "arXiv 2302.13971, table 2"),
    ("llama-3.1-8b", 8, None, 1, "arXiv 2407.21783"),
    ("llama-3.1-70b", 70, None, 1, "arXiv 2407.21783"),
    ("llama-3.1-405b", 405, None, 1, "arXiv 2407.21783"),
    ("mistral-7b", 7, None, 1, "arXiv 2310.06825"),
    ("mixtral-8x7b", 47, 13, 1, "arXiv 2401.04088"),
    ("olmo-2-32b", 32.2, None, 0.1, "hub page of allenai/OLMo-2-0325-32B"),
    ("olmo-3-7b", 7.3, None, 0.1, "hub page of allenai/Olmo-3-1025-7B"),
    ("olmo-3-32b", 32, None, 1, "its name"),
    ("qwen2.5-0.5b", 0.49, None, 0.01, "model card"),
    ("qwen2.5-7b", 7.61, None, 0.01, "model card"),
    ("qwen2.5-32b", 32, None, 1, "its name; the card's 32.5B is 0.26B below the weights"),
    ("qwen2.5-72b", 72.7, None, 0.1, "model card"),
    ("qwen3-0.6b", 0.6, None, 0.1, "model card"),
    ("qwen3-4b", 4.0, None, 0.1, "model card"),
    ("qwen3-8b", 8.2, None, 0.1, "model card"),
    ("qwen3-32b", 32.8, None, 0.1, "model card"),
    ("qwen3-30b-a3b", 30.5, 3.3, 0.1, "model card"),
    ("qwen3-235b-a22b", 235, 22, 1, "model card"),
    ("gemma-3-1b", 1, None, 0.1, "arXiv 2503.19786"),
    ("gemma-3-4b", 3.88, None, 0.01, "arXiv 2503.19786, table 1, without its vision encoder"),
    ("gemma-3-12b", 11.77, None, 0.01, "arXiv 2503.19786, table 1, without its vision encoder"),
    ("gemma-3-27b", 27.0, None, 0.1, "arXiv 2503.19786, table 1, without its vision encoder"),
    ("smollm2-135m", 0.135, None, 0.001, "its name"),
    ("smollm2-360m", 0.36, None, 0.01, "its name"),
    ("smollm2-1.7b", 1.7, None, 0.1, "its name"),
    ("smollm3-3b", 3, None, 1, "its name"),
    ("gpt-oss-20b", 20.91, None, 0.01, "arXiv 2508.10925, table 1"),
    ("gpt-oss-120b", 116.83, None, 0.01, "arXiv 2508.10925, table 1"),
    ("deepseek-v2", 236, 21, 1, "arXiv 2405.04434"),
    ("deepseek-v3", 671, 37, 1, "arXiv 2412.19437"),
    ("deepseek-r1", 671, 37, 1, "arXiv 2501.12948"),
    ("kimi-k2", 1026, 32, 1, "model card (1T, 32B); hub page (1.03T)"),
    ("megatron-22b", 22, None, 1, "arXiv 2205.05198"),
    ("megatron-175b", 175, None, 1, "arXiv 2205.05198"),
    ("megatron-530b", 530, None, 1, "arXiv 2205.05198"),
    ("megatron-1t", 1000, None, 10, "arXiv 2205.05198"),
]


def test_every_shipped_model_has_a_published_size():
    assert [name for name, *_ in sorted(PUBLISHED)] == list(catalogue())


@pytest.mark.parametrize(("name", "total", "active", "unit", "where"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_published_sizes(name, total, active, unit, where):
    numbers = model(name)
    assert numbers.name == name
    assert abs(numbers.parameters() - total * B) < unit * B, where
    if active is None:
        assert "-oss-" in name or numbers.active_parameters() == numbers.parameters()
    else:
        assert abs(numbers.active_parameters() - active * B) < unit * B, where


ONE_OF_EACH = {
    "deepseek-v3", "gemma-3-27b", "gpt-oss-120b", "megatron-22b", "mixtral-8x7b", "olmo-3-7b", "qwen2.5-7b", "qwen3-235b-a22b",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in ONE_OF_EACH else pytest.param(name, marks=pytest.mark.slow) for name in catalogue()]
)
def test_full_size_models_of_transformers_have_as_many_parameters(name):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    text = resources.files("trilaw.planner").joinpath("models", f"{name}.json").read_text(encoding="utf-8")
    config = {key: value for key, value in json.loads(text).items() if not key.startswith("_")}
    if config["model_type"] == "kimi_k2":
        config["model_type"] = "deepseek_v3"  # the class that its file asks for
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    assert model(name).parameters() == sum(weight.numel() for weight in built.parameters())


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("smollm2-135m", 134_515_008),
        ("olmo-2-32b", 32_234_279_936),
        ("olmo-3-7b", 7_298_011_136),
        ("deepseek-v3", 671_026_404_352),
    ],
)
def test_exact_totals(name, exact):
    assert model(name).parameters() == exact


def test_gemma_3_by_parts():
    # arXiv 2503.19786, table 1, non-embedding parameters in millions
    for name, millions in (
        ("gemma-3-1b", 698),
        ("gemma-3-4b", 3_209),
        ("gemma-3-12b", 10_759),
        ("gemma-3-27b", 25_600),
    ):
        numbers = model(name)
        assert round((numbers.parameters() - numbers.embedding_parameters()) / 1e6) == millions


def test_gpt_oss_by_parts():
    # arXiv 2508.10925, table 1: unembedding counts as active, embedding does not
    for name, experts, attention, tables, active in (
        ("gpt-oss-120b", 114.71, 0.96, 1.16, 5.13),
        ("gpt-oss-20b", 19.12, 0.64, 1.16, 3.61),
    ):
        numbers = model(name)
        routers = sum(x.feed_forward.experts * (numbers.hidden + 1) for x in numbers.layers)
        assert round((numbers.expert_parameters() + routers) / B, 2) == experts
        assert round(sum(x.attention.parameters(numbers.hidden) for x in numbers.layers) / B, 2) == attention
        assert round(numbers.embedding_parameters() / B, 2) == tables
        assert round(numbers.active_parameters(embedding=False) / B, 2) == active


def test_deepseek_v3_by_parts():
    """README_WEIGHTS.md of deepseek-ai/DeepSeek-V3, and the 685B of its hub page."""
    numbers = model("deepseek-v3")
    table = numbers.vocab * numbers.hidden
    assert round(table / B, 1) == 0.9  # "0.9B for Embedding and 0.9B for the output Head"
    assert numbers.embedding_parameters() == 2 * table
    # The page's 36.7B active "including" both tables is what one of them makes; with both it is 37.6B, the report's 37B.
    assert numbers.active_parameters(embedding=False) == pytest.approx(36.7 * B, rel=0.003)
    assert numbers.active_parameters() == pytest.approx(37.55 * B, rel=0.001)
    module = numbers.parameters(mtp=True) - numbers.parameters()
    (block,) = numbers.mtp
    assert round(block.parameters(numbers.hidden) / B, 1) == 11.5  # "11.5B unique": the block, without the projection
    assert module == block.parameters(numbers.hidden) + (2 * numbers.hidden + 3) * numbers.hidden
    assert round((block.active_parameters(numbers.hidden) + 2 * table) / B, 1) == 2.4
    stored = numbers.parameters() + module + 2 * table  # the repository stores copies of both tables
    assert stored == pytest.approx(685 * B, rel=0.001)
    assert stored - numbers.parameters() == pytest.approx(14 * B, rel=0.05)
    assert numbers.expert_parameters() == 58 * 256 * 3 * 7168 * 2048
    assert model("deepseek-r1").layers == numbers.layers


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [("deepseek-v3", 70_272), ("qwen2.5-72b", 327_680), ("llama-3.1-405b", 516_096)],
)
def test_cache_of_table_1(name, bytes_per_token):
    """arXiv 2505.09343, table 1: bf16 cache a token."""
    numbers = model(name)
    assert numbers.kv_bytes_per_token() == bytes_per_token
    assert numbers.kv_bytes_per_token(1) == bytes_per_token // 2
    assert numbers.kv_bytes(4096) == 4096 * bytes_per_token


@pytest.mark.parametrize(
    ("name", "gflops", "off"),
    [("deepseek-v2", 155, 0.003), ("deepseek-v3", 250, 0.003), ("llama-3.1-405b", 2448, 0.011)],
)
def test_training_flops_of_table_2(name, gflops, off):
    """arXiv 2505.09343, table 2: training FLOPs a token at 4,096. Causal attention is what meets them; the whole square does not."""
    numbers = model(name)
    assert numbers.flops_per_token(4096, training=True) == pytest.approx(gflops * 1e9, rel=off)
    assert numbers.flops_per_token(4096, training=True, causal=False) > 1.03 * gflops * 1e9


def test_the_row_of_table_2_that_no_convention_meets():
    """ "Qwen-72B, 394": the layers' weights alone make more. What 72 layers and half of the causal attention make is the printed number,
    and half of the causal attention makes Llama's too."""
    qwen, llama = model("qwen2.5-72b"), model("llama-3.1-405b")
    layers_alone = 3 * qwen.forward_flops(1, 0, 0)
    assert layers_alone > 1.06 * 394e9
    ours = qwen.flops_per_token(4096, training=True)
    assert ours == pytest.approx(444.9e9, rel=1e-3)
    assert ours / 394e9 == pytest.approx(1.129, abs=0.002), "a known disagreement, no tolerance of ours covers it"

    def halved(numbers: Numbers) -> float:
        whole = numbers.flops_per_token(4096, training=True)
        return (whole + 3 * numbers.forward_flops(1, 0)) / 2

    assert round(halved(llama) / 1e9) == 2448
    assert round(halved(replace(qwen, layers=qwen.layers[:72])) / 1e9) == 394


def test_no_convention_meets_both_dense_rows_of_table_2():
    """What is counted of a layer, of head and embedding, at which length, of which part of the square, how often: 1,800 ways to count.

    Those that give Llama's 2,448 within half a per cent give Qwen's 72B models 378 to 440, never 394. Qwen-72B of 2023 differs from
    Qwen2.5-72B in as many key-value heads as heads and a feed-forward of 24,576.
    """
    llama, qwen = model("llama-3.1-405b"), model("qwen2.5-72b")
    (layer,) = set(qwen.layers)
    first = replace(
        layer,
        attention=replace(layer.attention, kv_heads=64),
        feed_forward=replace(layer.feed_forward, hidden=24_576),
    )
    old = replace(qwen, layers=(first,) * 80)

    def count(numbers: Numbers, part: str, tables: int, length: int, square: float, times: float) -> float:
        h, (x,) = numbers.hidden, set(numbers.layers)
        a, f = x.attention, x.feed_forward
        query, keys, matrix = 2 * h * a.heads * a.head_dim, 2 * h * a.kv_heads * a.head_dim, h * f.hidden
        weights = {
            "all": query + keys + 3 * matrix,
            "no attention": 3 * matrix,
            "no keys and values": query + 3 * matrix,
            "ungated": query + keys + 2 * matrix,
        }[part]
        pairs = a.pair_flops() * (length + 1) / 2 * square
        return (
            times * (weights * len(numbers.layers) + tables * h * numbers.vocab)
            + times / 2 * pairs * len(numbers.layers)
        ) / 1e9

    ways = list(
        itertools.product(
            ("all", "no attention", "no keys and values", "ungated"),
            (0, 1, 2),
            (1024, 2048, 4096, 8192, 16_384, 32_768),
            (0, 0.25, 0.5, 1, 2),
            (4, 5, 5.5, 6, 8),
        )
    )
    assert len(ways) == 1800
    assert count(qwen, "all", 1, 4096, 1, 6) == pytest.approx(qwen.flops_per_token(4096, training=True) / 1e9)
    meeting = [way for way in ways if abs(count(llama, *way) / 2448 - 1) < 0.005]
    assert len(meeting) == 14
    found = [count(numbers, *way) for way in meeting for numbers in (qwen, old)]
    assert (round(min(found)), round(max(found))) == (378, 440)
    assert min(abs(x - 394) for x in found) > 15


def test_smollm2_counts_as_the_architecture_that_is_built():
    text = resources.files("trilaw.planner").joinpath("models", "smollm2-135m.json").read_text(encoding="utf-8")
    arch, numbers = Arch.from_config(json.loads(text)), model("smollm2-135m")
    assert arch.parameters() == numbers.parameters() == 134_515_008
    assert arch.forward_flops(512, 512 * 513 / 2) == numbers.forward_flops(512)
    assert arch.train_flops(512, 512 * 513 / 2) == 512 * numbers.flops_per_token(512, training=True)


# Errors that calculators share, each with the number that the mistake would give.


def test_head_size_is_not_hidden_over_heads():
    attention, hidden = model("qwen3-4b").layers[0].attention, model("qwen3-4b").hidden
    assert attention.head_dim == 128 != hidden // attention.heads
    assert model("qwen3-4b").kv_bytes_per_token() == 2 * 36 * 8 * 128 * 2
    assert model("qwen3-0.6b").kv_bytes_per_token() == 2 * (2 * 28 * 8 * (1024 // 16) * 2)


def test_the_cache_has_key_value_heads_not_query_heads():
    numbers = model("llama-3.1-70b")
    assert 8 * numbers.kv_bytes_per_token() == 2 * 80 * 64 * 128 * 2


def test_latent_attention_is_not_multi_head_attention():
    numbers = model("deepseek-v3")
    assert numbers.kv_bytes_per_token() == (512 + 64) * 61 * 2
    as_multi_head = 61 * 128 * (128 + 128) * 2  # without the rotary part, as arXiv 2405.04434 compares
    assert round(as_multi_head / numbers.kv_bytes_per_token(), 1) == 56.9


def test_layers_with_a_window_stop_growing():
    gemma, oss, olmo = model("gemma-3-27b"), model("gpt-oss-120b"), model("olmo-3-32b")
    assert [sum(x.attention.kind == "sliding" for x in m.layers) for m in (gemma, oss, olmo)] == [52, 18, 48]
    assert gemma.kv_bytes_per_token() == 2 * 10 * 16 * 128 * 2  # 10 of 62 layers
    row = 2 * 16 * 128 * 2
    assert gemma.kv_bytes(131_072) == row * (10 * 131_072 + 52 * 1_024)
    assert row * 62 * 131_072 / gemma.kv_bytes(131_072) > 5.9  # what counting every layer in full would claim
    assert oss.kv_bytes(8_192) == 2 * 8 * 64 * 2 * 18 * (8_192 + 128)
    assert gemma.kv_bytes(1_000) == row * 62 * 1_000  # below the window they are all alike
    mistral = model("mistral-7b")
    assert mistral.kv_bytes_per_token() == 0
    assert mistral.kv_bytes(100_000) == mistral.kv_bytes(4_096) > 0


def test_attention_flops_stop_growing_under_a_window():
    numbers = model("gpt-oss-20b")
    step = numbers.decode_flops(20_000) - numbers.decode_flops(10_000)
    assert step == 10_000 * 12 * 2 * 64 * (64 + 64)  # 12 of 24 layers


def test_a_mixture_computes_with_its_active_experts():
    numbers = model("mixtral-8x7b")
    assert numbers.parameters() / numbers.active_parameters() > 3.6
    assert numbers.forward_flops(1, 0) == pytest.approx(2 * numbers.active_parameters(embedding=False), rel=1e-3)
    assert numbers.forward_flops(1, 0) < 0.3 * 2 * numbers.parameters()


# Names and places.


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("deepseek-v3", "deepseek-v3"),
        ("DeepSeek-V3", "deepseek-v3"),
        (" deepseek-ai/DeepSeek-V3 ", "deepseek-v3"),
        ("deepseek-ai/deepseek-r1", "deepseek-r1"),
        ("Qwen/Qwen2.5-72B-Instruct", "qwen2.5-72b"),
        ("qwen2.5-72b-instruct", "qwen2.5-72b"),
        ("meta-llama/Llama-3.1-405B", "llama-3.1-405b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("llama-1-65b", "llama-65b"),
        ("google/gemma-3-27b-it", "gemma-3-27b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("Megatron-1T", "megatron-1t"),
    ],
)
def test_names(name, entry):
    assert model(name).name == entry
    assert source(name) == source(entry) != ""


def test_how_a_model_was_published():
    found = published("deepseek-ai/DeepSeek-V3")
    assert found is not None
    assert (found.precision, found.weight_bits) == ("fp8-v3", 8)  # arXiv 2412.19437, section 3.3
    assert published("deepseek-r1") is not None
    assert published("llama-3.1-8b") is published("no such model") is None
    for name in catalogue():
        known = published(name)
        assert known is None or (known.source and known.precision in PRECISIONS), name


def test_equal_layers_are_one_object():
    """Whoever sums over layers, a search of layouts above all, tells them apart by identity."""
    for name in catalogue():
        layers = model(name).layers
        assert len({id(layer) for layer in layers}) == len(set(layers)), name


def test_no_name_stands_for_two_models():
    seen: dict[str, str] = {}
    for name in catalogue():
        text = resources.files("trilaw.planner").joinpath("models", f"{name}.json").read_text(encoding="utf-8")
        entry = json.loads(text)
        assert entry["_source"], name
        for other in [name, *entry["_names"]]:
            for spelling in {other.casefold(), other.rpartition("/")[2].casefold()}:
                assert seen.setdefault(spelling, name) == name, spelling


TINY = {
    "model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 16,
}  # fmt: skip


def test_a_folder_and_a_file(tmp_path, monkeypatch):
    folder = tmp_path / "qwen2.5-72b"
    folder.mkdir()
    with pytest.raises(RequestError, match=r"qwen2\.5-72b has no config\.json"):
        model(str(folder))
    (folder / "config.json").write_text(json.dumps(TINY))
    # embedding and head 2 x 32, attention 64, feed-forward 72, norms 12
    assert model(str(folder)).parameters() == model(str(folder / "config.json")).parameters() == 212
    assert model(str(folder)).name == model(str(folder / "config.json")).name == "qwen2.5-72b"
    monkeypatch.chdir(tmp_path)
    assert model("./qwen2.5-72b").parameters() == 212
    assert model("qwen2.5-72b").parameters() > 7e10  # the catalogue goes first
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model("~/qwen2.5-72b").parameters() == 212


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_local_cache_of_the_hub(tmp_path, monkeypatch, variable):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {
        "HF_HUB_CACHE": "",
        "HF_HOME": "hub",
        "XDG_CACHE_HOME": "huggingface/hub",
        "HOME": ".cache/huggingface/hub",
    }
    cached = tmp_path / below[variable] / "models--some--Thing"
    with pytest.raises(RequestError, match="not in the Hugging Face cache"):
        model("some/Thing")
    for age, (revision, vocab) in enumerate((("new", 9), ("old", 8), ("empty", None))):
        snapshot = cached / "snapshots" / revision
        snapshot.mkdir(parents=True)
        if vocab is not None:
            (snapshot / "config.json").write_text(json.dumps(TINY | {"vocab_size": vocab}))
            os.utime(snapshot / "config.json", (1000 - age, 1000 - age))
    assert model("some/Thing").vocab == 9  # without a main branch, the newest
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("old\n")
    assert model("some/Thing").vocab == 8
    assert model("some/Thing").name == "some/Thing"
    (cached / "refs" / "main").write_text("gone")
    assert model("some/Thing").vocab == 9


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "The name of a model is empty"),
        ("  ", "The name of a model is empty"),
        ("deepsek-v3", "did you mean 'deepseek-v3'"),
        ("Qwen/Qwen2.5-72BB", r"did you mean 'qwen/qwen2\.5-72b'"),
        ("zzz", r"known: deepseek-r1, deepseek-v2"),
        ("../nowhere/at/all", "is no model of the catalogue"),
        ("a/b/c", "is no model of the catalogue"),
        ("x" * 5000, r"A name of 5,000 characters is no model"),
        ("nul\0l", "nul"),
    ],
)
def test_unknown_names_are_sentences(name, words, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RequestError, match=words) as caught:
        model(name)
    assert str(caught.value).endswith(".")


def test_unknown_source():
    with pytest.raises(RequestError, match="did you mean 'gemma-3-1b'"):
        source("gema-3-1b")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\xff", b"[" * 100_000, b""])
def test_broken_files_are_sentences(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json: this is no JSON"):
        model(str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="a table of settings is expected"):
        model(str(tmp_path))


def test_importing_it_brings_nothing_heavy():
    code = (
        "import sys, trilaw.planner.models as m; m.model('deepseek-v3');"
        "print([x for x in ('torch', 'numpy', 'scipy', 'huggingface_hub', 'pydantic') if x in sys.modules])"
    )
    path = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=True
    )
    assert done.stdout.strip() == "[]"
