"""What a right answer costs: k samples a problem, chosen by a vote or a verifier, at a served model's prices.

    dollars a problem = computed prompt tokens (once for all samples) + k x response tokens      dollars a solved problem = that / accuracy(k)

`accuracy` is any curve of one's own: measured pass@k or vote@k as a mapping, a function, or the closed beta-binomial form (arXiv 2510.05197,
arXiv 2604.01411): if problems' chances of success are spread like Beta(a, b), then pass@k = 1 - B(a, b + k) / B(a, b).

`kinetics` gives the cost in equivalent FLOPs of arXiv 2506.05333, which counts reading the cache beside computing; `lifetime_flops` the
forward FLOPs of all answers that a model will give, the second term of arXiv 2401.00448 with k samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trilaw.core.errors import RequestError

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.serve import ServePlan

Curve = Mapping[int, float] | Callable[[int], float]


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """Cost of a problem with k samples, and of a solved one. Dollars are None without a price; costs of solving are None at accuracy 0.

    `usd_per_extra_solved` is what a problem more costs than with the k before it: the price of the last step up the curve.
    """

    k: int
    accuracy: float
    output_tokens: float
    chip_seconds: float
    chip_seconds_per_solved: float | None
    usd: float | None
    usd_per_solved: float | None
    usd_per_extra_solved: float | None

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)


def beta_binomial(a: float, b: float) -> Callable[[int], float]:
    """pass@k where a problem's chance of success is drawn from Beta(a, b). Raises RequestError unless both are positive."""
    for name, number in (("a", a), ("b", b)):
        if not (math.isfinite(number) and number > 0):
            raise RequestError(f"{name} is {number:g}, a Beta distribution needs a positive number.")
    whole = math.lgamma(a + b) - math.lgamma(b)

    def accuracy(k: int) -> float:
        # B(a, b + k) / B(a, b), without the Gamma(a) that both share; expm1 keeps the digits of a small pass rate.
        return -math.expm1(math.lgamma(b + k) - math.lgamma(a + b + k) + whole)

    return accuracy


def accuracy_of(curve: Curve, k: int) -> float:
    """The curve at k. Raises RequestError for a k that a mapping does not hold, or a value that is no share."""
    if isinstance(curve, Mapping):
        if k not in curve:
            known = ", ".join(str(x) for x in sorted(curve))
            raise RequestError(f"The accuracy curve has no value for k = {k}; it has {known or 'none'}.")
        found = float(curve[k])
    else:
        found = float(curve(k))
    if not 0 <= found <= 1:
        raise RequestError(f"The accuracy at k = {k} is {found:g}, it must lie between 0 and 1.")
    return found


def cost_per_solved(plan: ServePlan, curve: Curve, ks: Iterable[int]) -> list[AnswerRow]:
    """A row for each k, ascending, at the plan's prices: the prompt is computed once a problem, each sample adds a response.

    Reading the cache of a shared prompt is priced as in the plan, at its own number of samples.
    Raises RequestError without a k, for a k below 1, or for a curve that does not hold.
    """
    wanted = sorted(set(ks))
    if not wanted or wanted[0] < 1:
        raise RequestError(f"k must be whole numbers of at least 1, they are {wanted}.")
    rows: list[AnswerRow] = []
    for k in wanted:
        accuracy = accuracy_of(curve, k)
        prompt, output = plan.prompt * (1 - plan.cached), float(k * plan.response)
        seconds = prompt * plan.chip_seconds_per_input_token + output * plan.chip_seconds_per_output_token
        usd = plan.usd(prompt, output)
        before = rows[-1] if rows else None
        extra = None
        if usd is not None and accuracy > (before.accuracy if before else 0.0):
            extra = (usd - ((before.usd or 0.0) if before else 0.0)) / (accuracy - (before.accuracy if before else 0.0))
        rows.append(
            AnswerRow(
                k=k,
                accuracy=accuracy,
                output_tokens=output,
                chip_seconds=seconds,
                chip_seconds_per_solved=seconds / accuracy if accuracy else None,
                usd=usd,
                usd_per_solved=usd / accuracy if usd is not None and accuracy else None,
                usd_per_extra_solved=extra,
            )
        )
    return rows


def best_k(rows: Sequence[AnswerRow], *, accuracy: float | None = None) -> AnswerRow:
    """The row that solves a problem for the fewest chip seconds; with `accuracy`, the cheapest that reaches it.

    Raises RequestError where no row solves anything, or none reaches the accuracy (with the best that one does).
    """
    if accuracy is not None:
        if not 0 < accuracy <= 1:
            raise RequestError(f"The accuracy asked for is {accuracy:g}, it must lie above 0 and at most 1.")
        reaching = [row for row in rows if row.accuracy >= accuracy]
        if not reaching:
            top = max((row.accuracy for row in rows), default=0.0)
            raise RequestError(f"No k tried reaches an accuracy of {accuracy:g}; the best is {top:.4g}.")
        return min(reaching, key=lambda row: row.chip_seconds)
    solving = [row for row in rows if row.chip_seconds_per_solved is not None]
    if not solving:
        raise RequestError("No k tried solves anything: the accuracy is 0 everywhere.")
    return min(solving, key=lambda row: row.chip_seconds_per_solved or math.inf)


def kinetics(numbers: Numbers, prompt: int, response: int, k: int, flops_per_byte: float) -> tuple[float, float]:
    """(compute, memory) in equivalent FLOPs of k responses to one prompt (arXiv 2506.05333), the prompt's own pass left out.

    compute = k (2 N L + attention over prompt and response so far); memory = bytes of cache read x `flops_per_byte` of the chip, where
    a step reads the prompt's cache once for all k. Weights are left out, as in the paper: batches are taken to be large. Departs from the
    paper in counting a latent cache (MLA) as it is, and its attention absorbed. Raises RequestError for a count below 1.
    """
    for name, number in (("prompt", prompt), ("response", response), ("k", k), ("flops_per_byte", flops_per_byte)):
        if not number > 0:
            raise RequestError(f"{name} is {number:g}, it must be positive.")
    # The mean context of a response's tokens; attention and cache are linear in it without windows.
    context = prompt + response / 2
    compute = k * response * numbers.decode_flops(context - 1)  # a token attends to itself as well
    own = numbers.kv_bytes(context) - numbers.kv_bytes(prompt)
    return compute, response * (numbers.kv_bytes(prompt) + k * own) * flops_per_byte


def lifetime_flops(
    numbers: Numbers,
    queries: float,
    *,
    prompt: int,
    response: int,
    k: int = 1,
    cached: float = 0.0,
    scorer: float = 0.0,
) -> float:
    """Forward FLOPs of all answers over a model's life: queries x 2 N (prompt x (1 - cached) + k x response), attention left out.

    N is the weights that a token passes. `scorer`: weights of a reward model that reads every response. Raises RequestError for a
    negative number or a share of 1 or more.
    """
    for name, number in (
        ("queries", queries),
        ("prompt", prompt),
        ("response", response),
        ("k", k),
        ("scorer", scorer),
    ):
        if not (math.isfinite(number) and number >= 0):
            raise RequestError(f"{name} is {number:g}, it must be a finite number of at least 0.")
    if not 0 <= cached < 1:
        raise RequestError(f"cached is {cached:g}, it is a share: at least 0 and below 1.")
    token = numbers.forward_flops(1, 0, 1)
    read = prompt * (1 - cached) + k * response
    return queries * (token * read + 2 * scorer * (prompt + k * response))
