"""What a model costs to serve, in bytes, FLOPs and seconds, for one layout and one batch: the arithmetic under serve.py.

A request is one prompt with `samples` responses. Cached keys and values of a prompt are held once for its samples. Whether a step also
READS them once is an assumption (`serve_prompt_reread`): at 0 the memory traffic is that of Kinetics (arXiv 2506.05333).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trilaw.core.errors import RequestError
from trilaw.planner.roofline import Ceilings, Pass, ceilings, share
from trilaw.planner.serve_layout import ServeLayout, routed_experts
from trilaw.planner.sheet import Sheet

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.hardware import Chip


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of request. `context` is the mean number of cached tokens that a step attends; `cached` the share of a prompt already read."""

    prompt: int
    response: int
    samples: int
    cached: float
    context: float
    concurrency: float | None  # sequences in flight on all chips; None: as many as fit


@dataclass(frozen=True, slots=True)
class Work:
    """What the model costs, read once from its Numbers, and the assumptions that a pass needs. Bytes at the width of the plan."""

    numbers: Numbers
    rates: Ceilings
    cache_bytes: float  # of one cached element
    rest: float  # bytes of the weights outside the routed experts
    read: float  # of them, read by every step (the embedding is a table look-up)
    routed: float  # bytes of the routed experts
    experts: int
    active: int
    moe_layers: int
    link_bytes: float  # a hidden value on its way to an expert and back
    drafts: int  # tokens drafted beside the next one
    accept: float
    hidden: float
    balance: float
    launch: float
    reread: float
    capacity: float  # bytes of a chip that weights and cache may fill
    slack: float
    chunk: float

    def weights(self, layout: ServeLayout) -> float:
        """Bytes of weights on a chip."""
        copies = 1 + layout.redundant / self.experts if self.experts else 0.0
        return self.rest / layout.tensor + self.routed * copies / layout.expert

    def cache_split(self, layout: ServeLayout) -> int:
        """Over how many chips a sequence's cache is cut: at most one key-value head a chip; a latent (MLA) is copied."""
        heads = [1 if x.attention.kind == "mla" else x.attention.kv_heads for x in self.numbers.layers]
        return min(layout.tensor, *heads)

    def cache(self, load: Load) -> float:
        """Bytes of cache that a sequence needs, its share of the prompt counted."""
        own = self.numbers.kv_bytes(load.context, self.cache_bytes)
        prompt = self.numbers.kv_bytes(min(load.prompt, load.context), self.cache_bytes)
        return (own - prompt * (1 - 1 / load.samples)) * (1 + self.slack)

    def fits(self, layout: ServeLayout, load: Load) -> int:
        """Sequences of an attention group whose cache fits beside the weights (0: none)."""
        free = self.capacity - self.weights(layout)
        return max(0, math.floor(free * self.cache_split(layout) / self.cache(load)))

    def decode(self, layout: ServeLayout, load: Load, batch: float) -> Pass:
        """A step of a replica with `batch` sequences in flight."""
        group = max(1.0, batch / layout.groups)  # a lone sequence keeps one group busy
        tokens = group * (1 + self.drafts)
        shared = self.numbers.kv_bytes(min(load.prompt, load.context), self.cache_bytes)
        read = self.numbers.kv_bytes(load.context, self.cache_bytes)
        read -= shared * (1 - 1 / load.samples) * (1 - self.reread)
        linear = self.numbers.forward_flops(1, 0, 1)
        attention = self.numbers.decode_flops(load.context) - linear
        return self._pass(
            layout, tokens, linear, attention, group * read / self.cache_split(layout), batch * (1 + self.drafts)
        )

    def prefill(self, layout: ServeLayout, load: Load, tokens: float) -> Pass:
        """A pass over `tokens` prompt tokens in every attention group of a replica."""
        new = load.prompt * (1 - load.cached)
        linear = self.numbers.forward_flops(1, 0, 0)  # the head is needed by the last token only
        attention = self.numbers.forward_flops(new, None, 0, cached=load.prompt - new) / new - linear
        return self._pass(layout, tokens, linear, attention, 0.0, tokens * layout.groups, grouped=True)

    def _pass(
        self,
        layout: ServeLayout,
        tokens: float,
        linear: float,
        attention: float,
        cache: float,
        routed: float,
        grouped: bool = False,
    ) -> Pass:
        """tokens: of an attention group. cache: bytes read by a chip. routed: tokens of the replica that choose experts."""
        rates, n, d = self.rates, layout.chips, self.numbers.hidden
        own = tokens / layout.tensor  # tokens whose experts a chip looks for
        touched = 1 - (1 - self.active / self.experts) ** routed if self.experts else 0.0
        copies = 1 + layout.redundant / self.experts if self.experts else 0.0
        weights = self.read / layout.tensor + touched * self.routed * copies / layout.expert
        tensor = expert = 0.0
        if layout.tensor > 1:
            # Two all-reduces a layer (a ring sends each value twice, less a chip's own part); with experts apart, one.
            sums = 2 * len(self.numbers.layers) - (self.moe_layers if layout.expert > 1 else 0)
            ring = 2 * (layout.tensor - 1) / layout.tensor
            tensor = sums * ring * tokens * d * 2 / rates.link(layout.tensor)
        if layout.expert > 1:
            sent = self.active * (n - 1) / n
            if grouped:  # big batches go once to every place that holds one of their experts, and are spread there
                places = -(-n // rates.domain) if n > rates.domain else n
                sent = min(sent, (places - 1) * (1 - (1 - 1 / places) ** self.active))
            expert = self.moe_layers * own * sent * d * self.link_bytes / rates.link(n)
        return Pass(
            matmul_compute=own * linear / rates.matmul,
            matmul_memory=weights / rates.memory,
            attention_compute=own * attention / rates.attention,
            attention_memory=cache / rates.memory,
            tensor_link=tensor,
            expert_link=expert,
            launch=self.launch * len(self.numbers.layers),
            hidden=self.hidden if layout.expert > 1 else 0.0,
            balance=self.balance if layout.expert > 1 else 1.0,
        )


def read_load(
    numbers: Numbers,
    count: int,
    prompt: int,
    response: int,
    *,
    context: float | None = None,
    samples: int = 1,
    cached: float = 0.0,
    concurrency: float | None = None,
    target_latency: float | None = None,
    price_per_hour: float | None = None,
) -> Load:
    """A load that holds. Raises RequestError for a number out of range, or a request longer than the model's context."""
    for name, whole in (("count", count), ("prompt", prompt), ("response", response), ("samples", samples)):
        if isinstance(whole, bool) or not isinstance(whole, int) or whole < 1:
            raise RequestError(f"{name} is {whole!r}, it must be a whole number of at least 1.")
    for name, number in (
        ("context", context),
        ("concurrency", concurrency),
        ("target_latency", target_latency),
        ("price_per_hour", price_per_hour),
    ):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise RequestError(f"{name} is {number:g}, it must be a positive number.")
    if concurrency is not None and concurrency < 1:
        raise RequestError(f"concurrency is {concurrency:g}, at least one sequence is in flight.")
    if not 0 <= cached < 1:
        raise RequestError(
            f"cached is {cached:g}, it is the share of prompt tokens read before: at least 0 and below 1."
        )
    longest = max(prompt + response, context or 0)
    if longest > numbers.max_positions:
        raise RequestError(
            f"{numbers.name} takes {numbers.max_positions} tokens of context at most, a prompt of {prompt} and a response of "
            f"{response} (context {longest:g}) are more."
        )
    return Load(prompt, response, samples, cached, context or prompt + response / 2, concurrency)


def read_work(numbers: Numbers, chip: Chip, weight_bits: int, kv_bits: int, sheet: Sheet) -> Work:
    rates = ceilings(chip, weight_bits, sheet)
    if kv_bits not in (16, 8, 4):
        raise RequestError(f"kv_bits is {kv_bits}, it must be 16, 8 or 4.")
    accept = sheet.assume("serve_draft_accept")
    if accept > 1:
        raise RequestError(f"The assumption 'serve_draft_accept' is {accept:g}, it is a share and must be at most 1.")
    if accept and not numbers.mtp:
        raise RequestError(f"{numbers.name} has no multi-token-prediction module, so 'serve_draft_accept' must stay 0.")
    reread = sheet.assume("serve_prompt_reread")
    if reread > 1:
        raise RequestError(f"The assumption 'serve_prompt_reread' is {reread:g}, it is a share and must be at most 1.")
    size = weight_bits / 8
    moe = [x.feed_forward for x in numbers.layers if x.feed_forward.kind == "moe"]
    routed = numbers.expert_parameters() * size
    rest = numbers.parameters(mtp=accept > 0) * size - routed
    table = 0 if numbers.tied else numbers.vocab * numbers.hidden * size
    return Work(
        numbers=numbers,
        rates=rates,
        cache_bytes=kv_bits / 8,
        rest=rest,
        read=rest - table,
        routed=routed,
        experts=routed_experts(numbers),
        active=max((x.active for x in moe), default=0),
        moe_layers=len(moe),
        link_bytes=(1 if weight_bits <= 8 else 2) + 2,
        drafts=1 if accept else 0,
        accept=accept,
        hidden=min(1.0, sheet.assume("serve_link_hidden")) if moe else 0.0,
        balance=share(sheet, "serve_expert_balance") if moe else 1.0,
        launch=sheet.assume("serve_launch"),
        reread=reread,
        capacity=chip.memory_bytes.value * share(sheet, "serve_memory_use"),
        slack=sheet.assume("serve_cache_slack"),
        chunk=max(1.0, sheet.assume("serve_prefill_tokens")),
    )
