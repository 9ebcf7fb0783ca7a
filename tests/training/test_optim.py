from __future__ import annotations

import pytest
import torch

from trilaw.core.arch import Arch
from trilaw.core.errors import RunError, TrilawError
from trilaw.model.llama import CausalLM
from trilaw.model.registry import build
from trilaw.training.muon import orthogonalise
from trilaw.training.optim import Optimizer, OptimizerConfig


def pull(model: CausalLM, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        for name, weight in model.named_parameters():
            generator = torch.Generator().manual_seed(1000 * step + len(name))
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step(step)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_round_trip_is_exact(kind: str, tiny_arch: Arch) -> None:
    config = OptimizerConfig(kind=kind, learning_rate=1e-2, weight_decay=0.1, schedule="cosine", warmup_steps=2)
    whole = build(tiny_arch, seed=1)
    pull(whole, Optimizer(whole, config, 6), range(1, 7))

    first = build(tiny_arch, seed=1)
    optimizer = Optimizer(first, config, 6)
    pull(first, optimizer, range(1, 4))
    saved = {name: value.clone() for name, value in optimizer.state().items()}
    second = build(tiny_arch, seed=2)
    second.load_state_dict(first.state_dict())
    continued = Optimizer(second, config, 6)
    continued.load(saved)
    assert all(value.equal(continued.state()[name]) for name, value in saved.items())
    pull(second, continued, range(4, 7))
    assert all(a.equal(b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_muon_takes_the_matrices_inside_blocks_only(tiny_arch: Arch) -> None:
    model = build(tiny_arch)
    optimizer = Optimizer(model, OptimizerConfig(kind="muon"), 1)
    pull(model, optimizer, range(1, 2))
    muon = {name.removesuffix("/momentum_buffer") for name in optimizer.state() if name.endswith("/momentum_buffer")}
    assert muon == {n for n, p in model.named_parameters() if ".layers." in n and p.dim() == 2}
    assert {n.rpartition("/")[0] for n in optimizer.state()} == {n for n, _ in model.named_parameters()}


def test_muon_direction_is_nearly_orthogonal_and_scaled_like_adamw() -> None:
    singular = torch.linalg.svdvals(orthogonalise(torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0))))
    assert float(singular.min()) > 0.5
    assert float(singular.max()) < 1.3


def test_state_of_another_model_is_refused(tiny_arch: Arch) -> None:
    optimizer = Optimizer(build(tiny_arch), OptimizerConfig(), 1)
    with pytest.raises(RunError, match="another model"):
        optimizer.load({"model.norm.weight/exp_avg": torch.zeros(3)})
    with pytest.raises(RunError, match="another model"):
        optimizer.load({"nobody/exp_avg": torch.zeros(32)})


def test_schedules() -> None:
    linear = OptimizerConfig(learning_rate=1.0, warmup_steps=4, schedule="linear", decay_from=0.3, final=0.05)
    assert [linear.rate(s, 100) for s in (1, 4, 30, 100)] == pytest.approx([0.25, 1, 1, 0.05])
    assert linear.rate(65, 100) == pytest.approx(1 - 0.95 * 0.5)
    cosine = OptimizerConfig(learning_rate=2.0, schedule="cosine", final=0.1)
    assert [cosine.rate(s, 10) for s in (5, 10)] == pytest.approx([1.1, 0.2])
    assert OptimizerConfig(learning_rate=3.0).rate(7, 9) == 3.0


def test_clipping_and_norm() -> None:
    weight = torch.nn.Linear(2, 1, bias=False)
    optimizer = Optimizer(weight, OptimizerConfig(clip=1.0), 1)
    weight.weight.grad = torch.tensor([[3.0, 4.0]])
    norm, _ = optimizer.step(1)
    assert norm == pytest.approx(5.0)
    torch.testing.assert_close(
        optimizer.state()["weight/exp_avg"], 0.1 * torch.tensor([[0.6, 0.8]]), rtol=1e-4, atol=1e-6
    )


def test_nothing_moves_without_a_gradient_and_a_broken_one_stops(tiny_arch: Arch) -> None:
    model = build(tiny_arch)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = Optimizer(model, OptimizerConfig(), 1)
    assert optimizer.step(1)[0] == 0.0
    model.model.norm.weight.grad = torch.full((32,), float("nan"))
    with pytest.raises(TrilawError, match="not finite"):
        optimizer.step(1)
    assert all(before[n].equal(p) for n, p in model.named_parameters())
