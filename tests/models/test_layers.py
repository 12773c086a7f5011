"""The last block at one position a row equals the whole block there; attention and dropout on a CPU are as PyTorch's;
how many users are ranked at once."""

import pytest
import torch
import torch.nn.functional as F

from msmrec.models.layers import ROWS, CausalTransformer, causal_attention, dropout
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


@pytest.mark.parametrize(("length", "heads"), [(1, 1), (ROWS, 2), (ROWS + 1, 1), (2 * ROWS + 30, 3)])
def test_attention_equals_the_kernel_of_pytorch(length: int, heads: int) -> None:
    torch.manual_seed(0)
    whole = torch.randn(2, length, 3, heads, 8, requires_grad=True)
    query, key, value = whole.permute(2, 0, 3, 1, 4).unbind(0)  # strided as in a block
    weight = torch.randn(2, heads, length, 8)
    found, expected = (
        causal_attention(query, key, value),
        F.scaled_dot_product_attention(query, key, value, is_causal=True),
    )
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    pairs = [torch.autograd.grad((mixed * weight).sum(), whole)[0] for mixed in (found, expected)]
    torch.testing.assert_close(*pairs, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = causal_attention(*(each.bfloat16() for each in (query, key, value)))
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, atol=0.03, rtol=0.03)


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


def test_scores_of_a_large_catalogue_are_made_for_few_users_at_once() -> None:
    assert users_at_once(128, 3_416) == 128
    assert users_at_once(128, 1_000_000) == 67  # 67 * 1,000,001 numbers are the last below 2^26
    assert users_at_once(128, 10**9) == 1
