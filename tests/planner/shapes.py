"""Small models for the tests of training plans, built by hand so that their counts can be checked by hand."""

from __future__ import annotations

from trilaw.core.numbers import Attention, FeedForward, Layer, Numbers


def gpt(*, hidden: int = 1024, heads: int = 16, layers: int = 8, vocab: int = 0, positions: int = 0) -> Numbers:
    """The layer of arXiv 2205.05198: multi-head attention, an ungated feed-forward of 4 x the width."""
    layer = Layer(
        Attention("full", heads, heads, hidden // heads, hidden // heads), FeedForward("dense", 4 * hidden, False)
    )
    return Numbers("gpt", "", hidden, vocab, True, 1 << 20, (layer,) * layers, positions=positions, final_norms=0)


def llama(
    *, hidden: int = 512, heads: int = 8, kv_heads: int = 2, ffn: int = 1536, layers: int = 4, vocab: int = 1000
) -> Numbers:
    """Grouped-query attention and a gated feed-forward, untied."""
    width = hidden // heads
    layer = Layer(Attention("full", heads, kv_heads, width, width), FeedForward("dense", ffn, True))
    return Numbers("llama", "", hidden, vocab, False, 1 << 20, (layer,) * layers)


def moe(
    *,
    hidden: int = 512,
    experts: int = 16,
    active: int = 2,
    width: int = 256,
    shared: int = 0,
    layers: int = 4,
    vocab: int = 1000,
) -> Numbers:
    """A mixture of experts with the attention of `llama`."""
    feed = FeedForward("moe", width, True, experts, active, shared, width if shared else 0)
    return Numbers("moe", "", hidden, vocab, False, 1 << 20, (Layer(Attention("full", 8, 2, 64, 64), feed),) * layers)
