"""What all models share: learning rates, weight decay, clipping, and what an evaluation computes with."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from msmrec.artifacts import InputError
from msmrec.models.base import Module


def module(precision: str = "32-true", steps: float = 8, **options: Any) -> Module:
    model = Module(**options)
    model.layer = torch.nn.Linear(2, 3)
    model._trainer = SimpleNamespace(  # type: ignore[assignment]
        precision=precision, estimated_stepping_batches=steps, world_size=1
    )
    return model


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 4, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", 0, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0]),
        ("linear", 2, [1 / 2, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0]),
        ("cosine", 0, [*(0.5 + 0.5 * math.cos(math.pi * k / 8) for k in range(8)), 0, 0]),
    ],
)
def test_rates_of_eight_steps_by_hand(schedule: str, warmup: int, expected: list[float]) -> None:
    made = module(lr=0.1, schedule=schedule, warmup_steps=warmup).configure_optimizers()
    scheduler, rates = made["lr_scheduler"]["scheduler"], []
    assert made["lr_scheduler"]["interval"] == "step"
    for _ in expected:
        rates.append(scheduler.get_last_lr())
        made["optimizer"].step()
        scheduler.step()
    assert rates == [pytest.approx([0.1 * rate] * 2, abs=1e-9) for rate in expected]


def test_a_schedule_needs_an_end() -> None:
    module(steps=math.inf).configure_optimizers()
    with pytest.raises(InputError, match=r"model\.schedule cosine needs an end"):
        module(steps=math.inf, schedule="cosine").configure_optimizers()


def test_only_matrices_decay() -> None:
    model = module(lr=0.1, weight_decay=0.5, warmup_steps=0)
    weight, bias = model.layer.weight.detach().clone(), model.layer.bias.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made = model.configure_optimizers()
    made["optimizer"].step()
    torch.testing.assert_close(model.layer.weight.detach(), 0.95 * weight)
    assert torch.equal(model.layer.bias, bias)


def test_bfloat16_gradients_are_clipped_beside_a_fused_optimiser() -> None:
    model = module("bf16-mixed")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # nine of them: length 3
    model.configure_gradient_clipping(model.configure_optimizers()["optimizer"], 1.5, None)
    torch.testing.assert_close(model.layer.bias.grad, torch.full((3,), 0.5))


@pytest.mark.parametrize("exact", [True, False])
def test_evaluation_is_in_float32_whatever_the_training(exact: bool) -> None:
    class Exact(Module):
        exact_evaluation = exact

        def evaluate(self, batch: Any) -> tuple[torch.Tensor, ...]:
            seen.append(torch.get_float32_matmul_precision())
            return (batch @ batch.T,)

    seen: list[str] = []
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            (made,) = Exact().evaluated(torch.randn(3, 3))
        assert torch.get_float32_matmul_precision() == "high"  # as before
    finally:
        torch.set_float32_matmul_precision(before)
    assert (made.dtype, seen) == ((torch.float32, ["highest"]) if exact else (torch.bfloat16, ["high"]))


def test_ranks_of_batches_with_fewer_targets_are_filled_up_with_the_worst() -> None:
    joined = module()._joined([torch.tensor([[5], [7]]), torch.tensor([[1, 2, 9]])])
    assert joined.tolist() == [[5, 9, 9], [7, 9, 9], [1, 2, 9]]
