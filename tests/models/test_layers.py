"""The last block at one position a row equals the whole block there; how many users are ranked at once."""

import pytest
import torch

from msmrec.models.layers import CausalTransformer
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


def test_scores_of_a_large_catalogue_are_made_for_few_users_at_once() -> None:
    assert users_at_once(128, 3_416) == 128
    assert users_at_once(128, 1_000_000) == 67  # 67 * 1,000,001 numbers are the last below 2^26
    assert users_at_once(128, 10**9) == 1
