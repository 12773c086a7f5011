"""The last block at one position a row equals the whole block there; attention and dropout on a CPU are as PyTorch's;
how many users are ranked at once."""

import pytest
import torch
import torch.nn.functional as F

from msmrec.models.layers import CausalTransformer, causal_attention, dropout
from msmrec.models.rec_module import users_at_once


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 1), (3, 4)])
def test_states_at_one_position_a_row_equal_the_whole(layers: int, heads: int) -> None:
    torch.manual_seed(0)
    model = CausalTransformer(16, 12, layers, heads, dropout=0.5).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases and norms matter too
    x, seq_len = torch.randn(5, 12, 16), torch.tensor([12, 1, 7, 3, 12])
    whole = model(x, seq_len)
    for column in (seq_len - 1, torch.tensor([0, 0, 3, 2, 11])):
        positions = torch.arange(5), column
        torch.testing.assert_close(model.at(x, seq_len, positions), whole[positions], atol=1e-5, rtol=1e-5)
    calls = []
    model.blocks[-1].register_forward_hook(lambda *_: calls.append(1))
    model.at(x, seq_len, (torch.arange(5), seq_len - 1))
    assert not calls  # the fast path was taken
    other_rows = torch.tensor([0, 0, 2, 4, 3]), torch.tensor([1, 5, 6, 0, 2])
    torch.testing.assert_close(model.at(x, seq_len, other_rows), whole[other_rows])
    model.train()
    assert model.at(x, seq_len, (torch.arange(5), seq_len - 1)).requires_grad
    assert len(calls) == 2  # neither other positions nor training take it


@pytest.mark.parametrize(("length", "heads"), [(1, 1), (40, 2), (130, 3)])
def test_attention_in_bfloat16_equals_the_exact_one(length: int, heads: int) -> None:
    torch.manual_seed(0)
    whole = torch.randn(2, length, 3, heads, 8, requires_grad=True)
    weight = torch.randn(2, heads, length, 8)

    def parts(kind: torch.dtype) -> tuple[torch.Tensor, ...]:
        return whole.to(kind).permute(2, 0, 3, 1, 4).unbind(0)  # strided as in a block

    expected = F.scaled_dot_product_attention(*parts(torch.float32), is_causal=True)
    assert torch.equal(causal_attention(*parts(torch.float32)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = causal_attention(*parts(torch.bfloat16))
    assert found.dtype == torch.bfloat16 and found.shape == expected.shape
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
    low, exact = (torch.autograd.grad((mixed * weight).sum(), whole)[0] for mixed in (found, expected))
    torch.testing.assert_close(low, exact, atol=0.1, rtol=0.05)
    assert F.cosine_similarity(low.flatten(), exact.flatten(), 0) > 0.9999
    scaled = [causal_attention(*parts(kind), 0.5).float() for kind in (torch.float32, torch.bfloat16)]
    torch.testing.assert_close(*scaled, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_that_share_wherever_it_is(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 203, dtype=dtype, requires_grad=True)  # no multiple of four
    dropped = dropout(x, p, training=True)
    assert dropped.dtype == dtype and dropped.shape == x.shape
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p), dtype=dtype).item()}
    gone = (dropped == 0).double()
    assert gone.mean().item() == pytest.approx(p, abs=0.003)
    for place in range(4):  # each of the four parts of a 64-bit number
        assert gone.flatten()[place::4].mean().item() == pytest.approx(p, abs=0.006)
    pairs = torch.corrcoef(torch.stack([gone.flatten()[k : 200_000 + k] for k in range(5)]))
    assert (pairs - torch.eye(5)).abs().max() < 0.02  # neighbours say nothing of each other
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, p, training=True), dropped)
    assert dropout(x, p, training=False) is x and dropout(x, 0.0, training=True) is x
    assert not dropout(x, 1.0, training=True).any()


def test_scores_of_a_large_catalogue_are_made_for_few_users_at_once() -> None:
    assert users_at_once(128, 3_416) == 128
    assert users_at_once(128, 1_000_000) == 67  # 67 * 1,000,001 numbers are the last below 2^26
    assert users_at_once(128, 10**9) == 1
