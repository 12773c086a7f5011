"""The chunked softmax against torch's cross-entropy; the sampled losses against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from msmrec.models.losses import Keys, bce_loss, ranking_loss, sampled_softmax_loss, softmax_loss


def rows_of(table: torch.Tensor) -> Keys:
    return lambda rows: table if rows is None else F.embedding(rows, table)


@pytest.mark.parametrize("chunk", [1, 7, 64, None])
def test_chunked_softmax_equals_cross_entropy_gradients_included(chunk: int | None) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(50, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    target = torch.randint(0, 30, (50,))
    plain = F.cross_entropy(queries @ keys.T, target)
    expected = torch.autograd.grad(plain * 3, (queries, keys))
    loss = softmax_loss(queries, keys, target, chunk=chunk)
    found = torch.autograd.grad(loss * 3, (queries, keys))
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_chunked_softmax_survives_large_scores() -> None:
    queries, keys = torch.full((4, 2), 100.0), torch.tensor([[100.0, 100.0], [-100.0, -100.0]])
    assert softmax_loss(queries, keys, torch.zeros(4, dtype=torch.long)).item() == 0.0
    assert softmax_loss(queries, keys, torch.ones(4, dtype=torch.long)).item() == 40_000.0


@pytest.mark.parametrize("chunk", [16, None])
def test_chunked_softmax_in_bfloat16_is_close(chunk: int | None) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(50, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    target = torch.randint(0, 30, (50,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = softmax_loss(queries, keys, target, chunk)
    plain = F.cross_entropy(queries @ keys.T, target)
    assert loss.item() == pytest.approx(plain.item(), rel=0.01)
    for low, exact in zip(*(torch.autograd.grad(each, (queries, keys)) for each in (loss, plain)), strict=True):
        torch.testing.assert_close(low, exact, atol=0.02 * float(exact.abs().max()), rtol=0)


def test_chunked_softmax_in_float16_passes_no_limit() -> None:
    torch.manual_seed(0)  # scores near each other, so that the sum of their exponentials is nearly the catalogue's size
    queries = torch.randn(16, 8).requires_grad_()
    keys, target = (torch.randn(150_000, 8) * 0.02).requires_grad_(), torch.randint(150_000, (16,))
    wanted = F.cross_entropy(queries @ keys.T, target)
    right = torch.autograd.grad(wanted, (queries, keys))
    with torch.autocast("cpu", dtype=torch.float16):
        loss = softmax_loss(queries, keys, target)
    torch.testing.assert_close(loss, wanted, rtol=1e-3, atol=0)
    others = torch.ones(150_000, dtype=torch.bool)
    others[target] = False
    found = torch.autograd.grad(loss, (queries, keys))
    assert (found[0] - right[0]).norm() < 0.01 * right[0].norm()
    assert (found[1] - right[1])[others].norm() < 0.01 * right[1][others].norm()


def test_sampled_softmax_estimates_the_full_one_and_its_gradient() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(20, 8).div(2).requires_grad_(), torch.randn(15, 8, requires_grad=True)
    target = torch.randint(0, 15, (20,))
    full = F.cross_entropy(queries @ keys.T, target)
    mean = torch.stack([sampled_softmax_loss(queries, rows_of(keys), target, 15, 12) for _ in range(300)]).mean()
    assert mean.item() == pytest.approx(full.item(), abs=0.15)  # the log of an estimate is a little low
    pairs = zip(torch.autograd.grad(mean, (queries, keys)), torch.autograd.grad(full, (queries, keys)), strict=True)
    for found, expected in pairs:
        assert F.cosine_similarity(found.flatten(), expected.flatten(), 0) > 0.99


@pytest.mark.parametrize("shared_by", [2, 4, 8])
def test_sampled_softmax_by_hand(shared_by: int) -> None:
    """One step against the formula, whether or not the sample holds the target, once or twice."""
    queries, keys = torch.randn(6, 4), torch.randn(5, 4)
    target = torch.tensor([0, 1, 2, 3, 4, 0])
    torch.manual_seed(3)
    loss = sampled_softmax_loss(queries, rows_of(keys), target, 5, 3, shared_by)
    torch.manual_seed(3)
    samples = torch.randint(5, (-(-6 // shared_by), 3))
    losses = []
    for k in range(6):
        sample = samples[k // shared_by]
        others = (queries[k] @ keys[sample].T)[sample != target[k]] + math.log(5 / 3)
        right = queries[k] @ keys[target[k]]
        losses.append(torch.cat([right[None], others]).logsumexp(0) - right)
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_sampled_softmax_of_hits_alone_is_zero() -> None:
    queries, keys = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4)
    torch.manual_seed(0)
    target = torch.zeros(3, dtype=torch.long)
    hits = [sampled_softmax_loss(queries, rows_of(keys), target, 2, 1) for _ in range(20)]
    assert min(loss.item() for loss in hits) == 0  # the only draw was the target
    for loss in hits:
        assert torch.autograd.grad(loss, queries)[0].isfinite().all()


def test_gbce_is_bce_at_t_zero_and_calibrated_at_one() -> None:
    queries, keys, target = torch.randn(20, 8), torch.randn(15, 8), torch.randint(0, 15, (20,))

    def loss(t: float | None) -> float:
        torch.manual_seed(1)
        return bce_loss(queries, rows_of(keys), target, 15, 2, t).item()

    assert loss(0.0) == pytest.approx(loss(None))
    # at t = 1 the positive's power is the sampling rate, 2 of 14
    torch.manual_seed(1)
    negative = torch.randint(0, 15, (20, 2))
    positive = F.logsigmoid((queries * keys[target]).sum(1))
    others = F.logsigmoid(-torch.einsum("td,tkd->tk", queries, keys[negative])).sum(1)
    assert loss(1.0) == pytest.approx(-(2 / 14 * positive + others).mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["softmax", "sampled_softmax", "bce", "gbce"])
def test_every_loss_learns_a_toy(name: str) -> None:
    torch.manual_seed(0)
    queries, keys = torch.nn.Parameter(torch.randn(6, 4)), torch.nn.Parameter(torch.randn(6, 4))
    target, optimizer = torch.arange(6), torch.optim.Adam([queries, keys], lr=0.1)
    for _ in range(150):
        loss = ranking_loss(name, queries, rows_of(keys), target, 6, 3, 0.5)  # type: ignore[arg-type]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((queries @ keys.T).argmax(1) == target).all()


def test_a_sample_as_large_as_the_catalogue_is_the_catalogue() -> None:
    queries, keys, target = torch.randn(6, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 4, 0])
    loss = ranking_loss("sampled_softmax", queries, rows_of(keys), target, 5, 5)
    torch.testing.assert_close(loss, F.cross_entropy(queries @ keys.T, target))
