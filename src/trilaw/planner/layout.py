"""How a training run is laid out over chips: which parallel splits, which pipeline schedule, what is recomputed; and which are possible.

The splits are those of Megatron-LM (arXiv 2104.04473, 2205.05198), ZeRO (arXiv 1910.02054) and DeepSeek-V3 (arXiv 2412.19437, section 3.2):

    chips = tp x cp x dp x pp

Ranks are numbered with tensor parallelism innermost, then context, data and, outermost, pipeline, so that the group that talks most sits in one
fast domain. Routed experts are spread over `ep` of the tp x cp x dp chips of a pipeline stage, whole experts on each (the "folded" layout of
Megatron-Core), and are replicated tp x cp x dp / ep times.

Layers need not divide over the stages: the last stage may carry fewer, because it also has the head (`split`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from trilaw.core.errors import RequestError, nearest

if TYPE_CHECKING:
    from trilaw.core.numbers import Layer, Numbers

Recompute = Literal["none", "selective", "pointwise", "full"]
Schedule = Literal["gpipe", "1f1b", "interleaved", "zb1p", "dualpipe"]
ROWS = 2_048  # tokens of a micro-batch from which products run at full speed
LIGHT = 1e12  # FLOPs of a layer of a micro-batch below which launching it may take longer than computing it
LONG_CONTEXT = 16_384  # from here on a search also splits sequences over chips


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to spread a run over `chips` chips.

    sequence_parallel: norms and residuals are split over the tensor-parallel chips too (with tp 1 there is nothing to split).
    zero: what is sharded over data parallelism: 1 optimizer, 2 and gradients, 3 and weights (FSDP's full sharding); 0 nothing.
    micro_batch: sequences of one forward pass of one pipeline.
    interleave: chunks of layers of a chip ("v"); more than 1 with the schedule "interleaved" only.
    recompute: what backward computes again. "selective": scores and softmax of attention (arXiv 2205.05198, section 5; with `flash` that is
      so anyway); "pointwise": also norms, activation functions and the up-projections of multi-head latent attention (arXiv 2412.19437,
      section 3.2.3); "full": whole layers.
    flash: attention without scores in memory, and without the products that the causal mask discards.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    cp: int = 1
    sequence_parallel: bool = True
    zero: int = 1
    micro_batch: int = 1
    interleave: int = 1
    recompute: Recompute = "none"
    schedule: Schedule = "1f1b"
    flash: bool = True

    @property
    def chips(self) -> int:
        return self.tp * self.pp * self.dp * self.cp

    @property
    def directions(self) -> int:
        """Stages that one chip holds: 2 with "dualpipe", whose micro-batches come from both ends."""
        return 2 if self.schedule == "dualpipe" else 1

    @property
    def experts_replicas(self) -> int:
        """Chips of a stage that hold the same routed experts."""
        return self.tp * self.cp * self.dp // self.ep

    def micro_batches(self, sequences: int) -> int:
        """Forward passes of one pipeline in a step of `sequences` sequences."""
        return sequences // (self.dp * self.micro_batch)

    def in_flight(self, stage: int, micro_batches: int) -> float:
        """Micro-batches whose activations a stage holds at its fullest (stages count from 0).

        1f1b: p - stage. interleaved: p (1 + (p-1)/(p v)) on the first stage (arXiv 2205.05198, section 4.2.3). gpipe: all. zb1p: p,
        dualpipe: p + 1, on every stage (arXiv 2412.19437, table 2).
        """
        p, v = self.pp, self.interleave
        held: float = {"gpipe": micro_batches, "zb1p": p, "dualpipe": p + 1}.get(self.schedule, p - stage)
        if self.schedule == "interleaved":
            held = ((v - 1) * p + 2 * (p - 1 - stage) + 1) / v
        return min(float(micro_batches), held)

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{name}{size}" for name, size in self._degrees() if size > 1] or ["one chip"]
        parts += [f"ZeRO-{self.zero}"] if self.zero and self.dp * self.cp > 1 else []
        parts += [f"micro-batch {self.micro_batch}"]
        if self.pp > 1:
            parts += [self.schedule + (f" x{self.interleave}" if self.interleave > 1 else "")]
        parts += [f"recompute {self.recompute}"] if self.recompute != "none" else []
        parts += ["no sequence parallelism"] if self.tp > 1 and not self.sequence_parallel else []
        return " ".join(parts) + ("" if self.flash else " without flash attention")

    def _degrees(self) -> tuple[tuple[str, int], ...]:
        return ("TP", self.tp), ("CP", self.cp), ("PP", self.pp), ("DP", self.dp), ("EP", self.ep)


@dataclass(frozen=True, slots=True)
class Stage:
    """What one pipeline stage holds: its kinds of layers with their counts, whether the embedding or the head is on it, and its weights.

    `layers` counts the blocks of multi-token-prediction modules too, each of which passes the head once more (`heads` passes in all).
    """

    layers: tuple[tuple[Layer, int], ...]
    embedding: bool
    heads: int
    dense: int  # weights outside routed experts and tables
    routed: int  # weights of routed experts
    tables: int  # weights of embedding, learned positions and head, a tied one once
    extra_products: int  # weights in products that stand in no layer: the projections of multi-token-prediction modules

    @staticmethod
    def of(numbers: Numbers, layers: tuple[tuple[Layer, int], ...], embedding: bool, head: bool, mtp: bool) -> Stage:
        """A stage of these layers; `mtp` puts the model's multi-token-prediction modules with the head."""
        h, modules = numbers.hidden, numbers.mtp if mtp and head else ()
        layers += tuple((module, 1) for module in modules)
        routed = sum(n * x.feed_forward.experts * x.feed_forward.expert_parameters(h) for x, n in layers)
        tables = (numbers.vocab + numbers.positions) * h if embedding else 0
        if head and not (embedding and numbers.tied):
            tables += numbers.vocab * h
        extra = len(modules) * 2 * h * h
        dense = sum(n * x.parameters(h) for x, n in layers) - routed + extra + len(modules) * 3 * h
        dense += numbers.final_norms * h if head else 0
        return Stage(layers, embedding, (1 + len(modules)) if head else 0, dense, routed, tables, extra)

    @property
    def count(self) -> int:
        """Layers, blocks of multi-token-prediction modules among them."""
        return sum(count for _, count in self.layers)

    def __add__(self, other: Stage) -> Stage:
        return Stage(
            self.layers + other.layers,
            self.embedding or other.embedding,
            self.heads + other.heads,
            self.dense + other.dense,
            self.routed + other.routed,
            self.tables + other.tables,
            self.extra_products + other.extra_products,
        )


def split(numbers: Numbers, pp: int, *, mtp: bool = False) -> tuple[Stage, ...]:
    """The stages of a pipeline of `pp`: as even as whole layers allow, the last one lighter where that shortens the slowest stage.

    Stages that hold the same are one object. Raises RequestError where there are fewer layers than stages.
    """
    work = [layer.products(numbers.hidden) for layer in numbers.layers]
    extra = numbers.hidden * numbers.vocab
    modules = numbers.mtp if mtp else ()
    if modules:
        extra += sum(
            x.products(numbers.hidden) + numbers.hidden * (numbers.vocab + 2 * numbers.hidden) for x in modules
        )
    total, best, sizes = len(work), float("inf"), [len(work)]
    if pp > total:
        raise RequestError(f"{numbers.name or 'The model'} has {total} layers, too few for {pp} pipeline stages.")
    mean = sum(work) / total
    for last in range(-(-total // pp), -1, -1) if pp > 1 else ():
        others = -(-(total - last) // (pp - 1))
        slowest = max(others * mean, last * mean + extra)
        if slowest < best and total - last >= pp - 1:
            short = others * (pp - 1) - (total - last)  # so many stages carry one layer less, the first ones
            best, sizes = slowest, [others - 1] * short + [others] * (pp - 1 - short) + [last]
    stages: list[Stage] = []
    seen: dict[tuple[object, ...], Stage] = {}
    start = 0
    for index, size in enumerate(sizes):
        held = {id(layer): layer for layer in numbers.layers[start : start + size]}
        times = Counter(id(layer) for layer in numbers.layers[start : start + size])
        final = index == len(sizes) - 1
        key = (*times.items(), index == 0, final)
        if key not in seen:
            kinds = tuple((held[i], n) for i, n in times.items())
            seen[key] = Stage.of(numbers, kinds, index == 0, final, mtp)
        stages.append(seen[key])
        start += size
    return tuple(stages)


def distinct(stages: tuple[Stage, ...]) -> dict[int, Stage]:
    """The stages that differ, each by the first index at which it stands."""
    found: dict[int, Stage] = {}
    seen: set[int] = set()
    for index, stage in enumerate(stages):
        if id(stage) not in seen:
            seen.add(id(stage))
            found[index] = stage
    return found


def on_chips(stages: tuple[Stage, ...], layout: Layout) -> tuple[Stage, ...]:
    """What the chips of each stage hold. With "dualpipe" that is the stage and its mirror image, each for one half of the micro-batches."""
    if layout.schedule != "dualpipe":
        return stages
    seen: dict[tuple[int, int], Stage] = {}
    for a, b in zip(stages, reversed(stages)):
        if (id(a), id(b)) not in seen:
            seen[id(a), id(b)] = seen[id(b), id(a)] = a + b
    return tuple(seen[id(a), id(b)] for a, b in zip(stages, reversed(stages)))


def kinds(numbers: Numbers) -> set[Layer]:
    """The distinct layers. Equal layers are mostly one object, which spares hashing each."""
    return set({id(layer): layer for layer in numbers.layers}.values())


def _whole(layout: Layout) -> None:
    for name in ("tp", "pp", "dp", "ep", "cp", "micro_batch", "interleave"):
        value = getattr(layout, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestError(f"The layout's '{name}' must be a whole number of at least 1, it is {value!r}.")
    if type(layout.zero) is not int or not 0 <= layout.zero <= 3:
        raise RequestError(f"The layout's 'zero' is 0, 1, 2 or 3, it is {layout.zero!r}.")
    for name, known in (("recompute", get_args(Recompute)), ("schedule", get_args(Schedule))):
        value = getattr(layout, name)
        if value not in known:
            raise RequestError(f"The layout's '{name}' cannot be {value!r}{nearest(str(value), known)}.")
    if (layout.schedule == "interleaved") != (layout.interleave > 1):
        raise RequestError(
            f"The schedule '{layout.schedule}' does not go with interleave = {layout.interleave}:"
            " more than 1 chunk a chip is what 'interleaved' means."
        )
    if layout.schedule == "dualpipe" and layout.pp % 2:
        raise RequestError(f"The schedule 'dualpipe' needs an even number of stages, it is {layout.pp}.")
    if layout.schedule != "1f1b" and layout.pp == 1:
        raise RequestError(f"The schedule '{layout.schedule}' needs a pipeline of at least 2 stages.")


def _would(number: int, degree: int) -> str:
    """The next larger degree that divides, in words."""
    larger = next((d for d in divisors(number) if d > degree), None)
    return f"; {larger} would" if larger else ""


def check(layout: Layout, numbers: Numbers, count: int, *, context: int, sequences: int) -> None:
    """Raises RequestError, in one sentence, for a layout that does not divide the model, the chips or the batch."""
    _whole(layout)
    name, found = numbers.name or "the model", kinds(numbers)
    if layout.chips != count:
        raise RequestError(
            f"The layout {layout} has {layout.chips} chips (tp x cp x pp x dp), the plan has {count}: change 'dp' or the count."
        )
    chunks = layout.pp * layout.interleave
    if chunks > len(numbers.layers):
        raise RequestError(f"{name} has {len(numbers.layers)} layers, too few for {chunks} pipeline chunks.")
    for layer in found:
        heads, kv_heads, hidden = layer.attention.heads, layer.attention.kv_heads, layer.feed_forward.hidden
        if heads % layout.tp:
            raise RequestError(
                f"{heads} attention heads of {name} do not divide over tp = {layout.tp}{_would(heads, layout.tp)}."
            )
        if layer.attention.kind != "mla" and kv_heads % layout.tp and layout.tp % kv_heads:
            raise RequestError(f"{kv_heads} key-value heads of {name} and tp = {layout.tp} do not divide either way.")
        if layer.feed_forward.kind == "dense" and hidden % layout.tp:
            raise RequestError(
                f"The feed-forward width {hidden} of {name} does not divide over tp = {layout.tp}{_would(hidden, layout.tp)}."
            )
    experts = {layer.feed_forward.experts for layer in found if layer.feed_forward.kind == "moe"}
    if layout.ep > 1 and not experts:
        raise RequestError(f"{name} has no experts to spread over ep = {layout.ep}.")
    for number in experts:
        if number % layout.ep:
            raise RequestError(
                f"{number} experts of {name} do not divide over ep = {layout.ep}{_would(number, layout.ep)}."
            )
    if layout.tp * layout.cp * layout.dp % layout.ep:
        raise RequestError(
            f"ep = {layout.ep} does not divide the {layout.tp * layout.cp * layout.dp} chips of a stage (tp x cp x dp)."
        )
    if experts and layout.tp > 1 and not layout.sequence_parallel:
        raise RequestError("Experts with tensor parallelism need sequence_parallel, or each token is sent tp times.")
    parts = layout.cp * (layout.tp if layout.sequence_parallel else 1)
    if context % parts:
        raise RequestError(f"A context of {context} tokens does not divide over {parts} chips (cp, and tp with it).")
    unit = layout.dp * layout.micro_batch
    if sequences % unit:
        raise RequestError(
            f"A batch of {sequences} sequences does not divide over dp = {layout.dp} pipelines"
            f" in micro-batches of {layout.micro_batch}; {-(-sequences // unit) * unit} would."
        )
    if layout.schedule == "dualpipe" and layout.micro_batches(sequences) % 2:
        raise RequestError(
            f"The schedule 'dualpipe' starts half of the micro-batches at each end, and {layout.micro_batches(sequences)} are odd."
        )
    if layout.cp > 1 and not layout.flash:
        raise RequestError("Splitting sequences over chips (cp) is planned with flash attention only.")


def divisors(number: int) -> list[int]:
    """Every divisor, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def _micro_batches(tokens: int, share: int, zero: int, flops: float) -> list[int]:
    """Sequences of a micro-batch worth a look: enough for `ROWS` rows a product; with ZeRO-3, which gathers for each, more as well.

    So also where `flops`, those of a token in the heaviest layer, make it a light one: each micro-batch is launched anew.
    """
    fitting = [m for m in (1 << k for k in range(12)) if share % m == 0]
    first = next((m for m in fitting if m * tokens >= ROWS), fitting[-1])
    more = zero == 3 or first * tokens * flops < LIGHT
    return [m for m in fitting if first <= m <= (8 * first if more else first)]


def candidates(numbers: Numbers, count: int, domain: int, *, context: int, sequences: int) -> Iterator[Layout]:
    """Every layout worth a look that `check` accepts, without what is recomputed: whoever asks adds the least that fits.

    Tensor parallelism stays inside a fast domain. ZeRO-3 is tried without a pipeline, ZeRO-1 throughout; "dualpipe" where experts talk across
    chips, "interleaved" with the most chunks; where none divide the layers evenly some are shorter (126 layers of Llama 3.1 405B over 16 stages).
    """
    layers = len(numbers.layers)
    heaviest = 6 * max(layer.products(numbers.hidden) for layer in kinds(numbers))
    for base in _splits(numbers, count, domain, context, sequences):
        schedules: list[tuple[Schedule, int]] = [("1f1b", 1)]
        if base.pp > 1:
            chunks = [v for v in (2, 3, 4, 5, 6, 7, 8) if base.pp * v <= layers]
            even = [v for v in chunks if layers % (base.pp * v) == 0]
            schedules += [("interleaved", v) for v in even[-2:] or chunks[-1:]]
        if base.ep > 1 and base.pp % 2 == 0:
            schedules.append(("dualpipe", 1))
        share = sequences // base.dp
        for zero in (1, 3) if base.pp == 1 and base.dp * base.cp > 1 else (1,):
            for micro in _micro_batches(context // base.cp, share, zero, heaviest / base.tp):
                for schedule, v in schedules:
                    if schedule != "dualpipe" or share // micro % 2 == 0:
                        yield replace(base, zero=zero, micro_batch=micro, schedule=schedule, interleave=v)


def _splits(numbers: Numbers, count: int, domain: int, context: int, sequences: int) -> Iterator[Layout]:
    """Every way to divide the chips that divides model and batch too."""
    moe = [layer.feed_forward.experts for layer in kinds(numbers) if layer.feed_forward.kind == "moe"]
    cps = [1] if context < LONG_CONTEXT else [c for c in (1, 2, 4, 8, 16, 32) if context // c >= LONG_CONTEXT // 4]
    for tp in (d for d in divisors(count) if d <= domain):
        for pp in (d for d in divisors(count // tp) if d <= len(numbers.layers)):
            for cp in (c for c in cps if count // (tp * pp) % c == 0):
                dp = count // (tp * pp * cp)
                for ep in (d for d in divisors(tp * cp * dp) if all(n % d == 0 for n in moe)) if moe else (1,):
                    layout = Layout(tp=tp, pp=pp, dp=dp, ep=ep, cp=cp)
                    try:
                        check(layout, numbers, count, context=context, sequences=sequences)
                    except RequestError:
                        continue
                    yield layout
