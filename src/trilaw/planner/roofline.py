"""How long one pass of a model takes on a chip: the larger of computing and reading, kind of work by kind of work, plus the links.

The roofline (Williams, Waterman, Patterson, CACM 2009) bounds a kernel by max(FLOPs / peak FLOP/s, bytes / bandwidth). A pass of a
transformer is two kinds of kernels with very different intensities, so they are bounded apart and added:

    compute   = max(weight products: FLOPs, bytes of weights)  +  max(attention: FLOPs, bytes of cached keys and values)
    pass      = (compute + tensor links + expert links - hidden share x min(compute, expert links)) / balance  +  layers x launch

Peaks are multiplied by the shares that kernels reach in practice, which are assumptions with names (`serve_...` in assumptions.toml).
The last formula departs from the textbook: an all-to-all between experts is overlapped with computing by splitting the batch in
two, which hides a part of it only, and the slowest chip of an expert-parallel group sets the pace.

`expert_all_to_all` is the bound of "Insights into DeepSeek-V3" (arXiv 2505.09343, section 2.3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trilaw.core.errors import RequestError
from trilaw.planner.sheet import Sheet

if TYPE_CHECKING:
    from trilaw.planner.hardware import Chip
    from trilaw.planner.sourced import Sourced

# Which products a chip runs for weights of so many bits, the best first. Weights narrower than the products are widened on the way.
PRODUCTS = {16: ("bf16", "fp32"), 8: ("fp8", "int8", "bf16", "fp32"), 4: ("fp4", "bf16", "fp32")}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a chip reaches in practice: peaks times assumed shares. FLOP/s and bytes/s; links are one direction per chip."""

    products: str  # the kind of product that multiplies the weights: "bf16", "fp8", ...
    matmul: float
    attention: float
    memory: float
    scale_up: float  # between the chips of one domain; 0 where no such link is known
    scale_out: float  # between domains; 0 where no network is known
    domain: int  # chips in one scale-up domain

    def link(self, chips: int) -> float:
        """Bytes/s one way between `chips` chips: the fast link inside a domain, the network beyond it; 0 where none is known."""
        return self.scale_up if chips <= self.domain else self.scale_out


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass of a group of chips, in seconds, by what it waits for."""

    matmul_compute: float
    matmul_memory: float
    attention_compute: float
    attention_memory: float
    tensor_link: float
    expert_link: float
    launch: float
    hidden: float  # share of the shorter of (compute, expert links) that the longer one covers
    balance: float  # mean load over the load of the busiest chip

    @property
    def compute(self) -> float:
        """Seconds in kernels that compute or read, links left out."""
        return max(self.matmul_compute, self.matmul_memory) + max(self.attention_compute, self.attention_memory)

    @property
    def seconds(self) -> float:
        covered = self.hidden * min(self.compute, self.expert_link)
        return (self.compute + self.tensor_link + self.expert_link - covered) / self.balance + self.launch

    @property
    def binds(self) -> str:
        """What most of the time goes to: "compute", "memory", "link" or "launch"."""
        shares = {"compute": 0.0, "memory": 0.0, "link": self.tensor_link + self.expert_link, "launch": self.launch}
        for compute, memory in (
            (self.matmul_compute, self.matmul_memory),
            (self.attention_compute, self.attention_memory),
        ):
            shares["compute" if compute >= memory else "memory"] += max(compute, memory)
        return max(shares, key=lambda name: shares[name])


def roof(rates: Ceilings, passes: Mapping[str, Pass]) -> dict[str, Any]:
    """What a roofline shows, as plain data: the ceilings, and the kernels of each pass with FLOPs a byte and FLOP/s reached.

    Kernels that read nothing of note (the attention of a prompt, whose keys and values are just made) have no place on it.
    """
    found = []
    for name, p in passes.items():
        for kind, peak, compute, memory in (
            ("weights", rates.matmul, p.matmul_compute, p.matmul_memory),
            ("attention", rates.attention, p.attention_compute, p.attention_memory),
        ):
            if compute > 0 and memory > 0:
                flops, read = compute * peak, memory * rates.memory
                found.append(
                    {
                        "pass": name,
                        "kernel": kind,
                        "flops_per_byte": flops / read,
                        "flops_per_second": flops / max(compute, memory),
                        "seconds": max(compute, memory),
                    }
                )
    return {
        "products": rates.products,
        "matmul_flops_per_second": rates.matmul,
        "attention_flops_per_second": rates.attention,
        "memory_bytes_per_second": rates.memory,
        "kernels": found,
    }


def ceilings(chip: Chip, weight_bits: int, sheet: Sheet) -> Ceilings:
    """The rates that `chip` reaches with weights of `weight_bits` (16, 8 or 4), from its data sheet and the assumed shares.

    8 bits run as FP8 where the chip has it, else as INT8, else the weights are widened to BF16; 4 bits as FP4 or widened to BF16.
    Raises RequestError for another width.
    """
    if weight_bits not in PRODUCTS:
        raise RequestError(f"weight_bits is {weight_bits}, it must be 16, 8 or 4.")
    wide = next((kind for kind in PRODUCTS[16] if kind in chip.flops), None)
    products = next((kind for kind in PRODUCTS[weight_bits] if kind in chip.flops), None)
    if wide is None or products is None:
        raise RequestError(
            f"The chip '{chip.name}' has no bf16 or fp32 peak in its file, so its speed cannot be planned."
        )
    full, low = share(sheet, "serve_matmul_bf16"), share(sheet, "serve_matmul_low")
    return Ceilings(
        products=products,
        matmul=chip.rate(products) * (full if products in PRODUCTS[16] else low),
        attention=chip.rate(wide) * full,
        memory=chip.memory_bandwidth.value * share(sheet, "serve_bandwidth"),
        scale_up=_link(chip.scale_up_bandwidth, chip.scale_up_effective, sheet),
        scale_out=_link(chip.scale_out_bandwidth, chip.scale_out_effective, sheet),
        domain=int(chip.scale_up_size.value),
    )


def _link(peak: Sourced | None, measured: Sourced | None, sheet: Sheet) -> float:
    """Bytes/s of a link: what was measured of it, else its peak times the assumed share, 0 where the chip has none."""
    if measured is not None:
        return measured.value
    return 0.0 if peak is None else peak.value * share(sheet, "serve_link")


def share(sheet: Sheet, name: str) -> float:
    """An assumption that is a share. Raises RequestError unless it lies above 0 and at most 1."""
    number = sheet.assume(name)
    if not 0 < number <= 1:
        raise RequestError(f"The assumption '{name}' is {number:g}, it is a share and must lie above 0 and at most 1.")
    return number


def expert_all_to_all(
    tokens: float,
    experts: float,
    hidden: int,
    bandwidth: float,
    *,
    dispatch_bytes: float = 1.0,
    combine_bytes: float = 2.0,
) -> float:
    """Seconds to send `tokens` tokens of a chip to `experts` experts each and to bring the results back, at `bandwidth` bytes/s.

    The bound of arXiv 2505.09343: (1 byte out in FP8 + 2 bytes back in BF16) x 32 tokens x 9 experts x 7,000 / 50 GB/s = 120.96 us.
    The paper counts the hidden size as 7K; DeepSeek-V3's is 7,168. Raises RequestError unless all arguments are positive.
    """
    for name, number in (("tokens", tokens), ("experts", experts), ("hidden", hidden), ("bandwidth", bandwidth)):
        if not number > 0:
            raise RequestError(f"{name} is {number:g}, an all-to-all needs a positive number.")
    return (dispatch_bytes + combine_bytes) * tokens * experts * hidden / bandwidth


def expert_decode_bound(
    layers: int, tokens: float, experts: float, hidden: int, bandwidth: float, *, micro_batches: int = 2
) -> float:
    """Least seconds per output token when nothing but the links between experts takes time (arXiv 2505.09343).

    `micro_batches` halves of the batch alternate, `tokens` each, so a layer takes that many all-to-alls: 2 x 120.96 us x 61 layers
    = 14.76 ms at 50 GB/s, 0.82 ms at 900 GB/s.
    """
    return layers * micro_batches * expert_all_to_all(tokens, experts, hidden, bandwidth)
