"""Prompts that share a sequence give what each alone gives: scores and gradients; and the mask by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msmrec.artifacts import InputError
from msmrec.columns import TRAIN
from msmrec.ctr.batches import PromptBatch, PromptLoader
from msmrec.ctr.language_model import AnswerStates, cpu_attention
from msmrec.data.prepare import Dataset
from msmrec.data.samples import sample_rows
from msmrec.retrieval.history import history_start, in_time, recent_history
from msmrec.retrieval.prompts import Prompts, PromptTemplate, PromptTokens
from msmrec.retrieval.retriever import Retriever

TEMPLATE = PromptTemplate(history="Rated:", entry="{rating}{soft}", question="{title}{soft}?", no_history="None.")
SOFT = 200  # token id of the soft token


def in_bytes(texts: list[str]) -> list[list[int]]:
    """A token a byte; the soft token is §, one token of its own."""
    return [list(text.encode().replace("§".encode(), bytes([SOFT]))) for text in texts]


@pytest.fixture(scope="module")
def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, max_position_embeddings=1024,
    )  # fmt: skip
    model: nn.Module = LlamaModel(config)
    cpu_attention(model)
    return model


def loader(dataset: Dataset, share: bool, max_tokens: int = 400, window: int = 4, **batches: int) -> PromptLoader:
    prompts = Prompts(dataset, TEMPLATE, soft_token="§")
    tokens = PromptTokens(prompts, in_bytes, [2], [3], SOFT, max_tokens)
    rows = sample_rows(dataset, TRAIN)
    history = in_time(recent_history(dataset, rows, 3, window))
    history[:5] = -1  # nothing is told
    label = np.arange(len(rows)) % 2
    where = {"device": torch.device("cpu"), "shuffle": True, "tokens_per_batch": 3000, **batches}
    return PromptLoader(tokens, rows, history, label, share=share, **where)


def answers(llama: nn.Module, batch: PromptBatch) -> Tensor:
    """Of all states those at the answers."""
    states = llama(
        input_ids=batch.input_ids, position_ids=batch.position, attention_mask=batch.mask(), use_cache=False
    ).last_hidden_state
    found: Tensor = states[batch.sequence, batch.last]
    return found


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_the_last_layer_at_the_answers_alone(tiny_clicks: Dataset, llama: nn.Module, share: bool, bf16: bool) -> None:
    whole, part = copy.deepcopy(llama), copy.deepcopy(llama)
    states, seen = AnswerStates(part), []
    part.layers[-1].mlp.up_proj.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()))
    assert states.only
    for batch in loader(tiny_clicks, share):
        places = batch.sequence, batch.last
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            wanted = answers(whole, batch)
            found = states(places, input_ids=batch.input_ids, position_ids=batch.position, attention_mask=batch.mask())
        assert seen.pop() == len(batch.label) == len(found)
        torch.testing.assert_close(found, wanted, **({"rtol": 0.0, "atol": 0.05} if bf16 else {}))
        weight = batch.label[:, None] - 0.3
        (wanted.float() * weight).sum().backward()
        (found.float() * weight).sum().backward()
    if not bf16:
        for ours, theirs in zip(part.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4 * float(theirs.grad.abs().max()))


def test_a_decoder_that_is_built_otherwise_is_computed_whole() -> None:
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=1)).eval()
    ids, places = torch.arange(20).view(2, 10), (torch.tensor([0, 1]), torch.tensor([9, 4]))
    states = AnswerStates(model)
    assert not states.only
    torch.testing.assert_close(states(places, input_ids=ids), model(input_ids=ids).last_hidden_state[places])


def all_answers(llama: nn.Module, made: PromptLoader) -> dict[tuple[int, int], tuple[float, ...]]:
    found = {}
    for batch in made:
        states = answers(llama, batch)
        for user, item, label, state in zip(batch.user_id, batch.target_item, batch.label, states, strict=True):
            found[int(user), int(item)] = (float(label), *state.tolist())
    return found


@pytest.mark.parametrize("max_tokens", [400, 110])  # of the short ones the oldest ratings are left out
def test_every_answer_is_that_of_its_own_prompt(tiny_clicks: Dataset, llama: nn.Module, max_tokens: int) -> None:
    plain, shared = (loader(tiny_clicks, share, max_tokens) for share in (False, True))
    assert len(plain.plan.length) == len(plain.rows) > 1.5 * len(shared.plan.length)
    assert plain.tokens.sizes(plain.rows, plain.history).length.max() <= max_tokens
    with torch.no_grad():
        alone, together = all_answers(llama, plain), all_answers(llama, shared)
    assert alone.keys() == together.keys() and len(alone) == len(plain.rows)
    for key, wanted in alone.items():
        assert together[key] == pytest.approx(wanted, abs=1e-5)


def test_gradients_are_those_of_the_prompts_alone(tiny_clicks: Dataset, llama: nn.Module) -> None:
    gradients = []
    for share in (False, True):
        llama.zero_grad()
        for batch in loader(tiny_clicks, share):
            (answers(llama, batch)[:, 0] * (batch.label - 0.3)).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in llama.parameters() if parameter.grad is not None])
    assert len(gradients[0]) > 10
    for alone, together in zip(*gradients, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


def test_soft_tokens_lie_where_their_token_is(tiny_clicks: Dataset) -> None:
    for batch in loader(tiny_clicks, True):
        assert torch.equal(batch.soft_item > 0, batch.input_ids == SOFT)
        assert torch.equal(batch.soft_item[batch.sequence, batch.last - 3], batch.target_item)  # "§?", line break, [3]


def test_the_mask_by_hand() -> None:
    # The whole prompt has 4 tokens; two branches of 1 and 2 tokens see 2 and 3 of them; one place is padding.
    branch, shared = torch.tensor([[0, 0, 0, 0, 1, 2, 2, -1]]), torch.tensor([[0, 0, 0, 0, 2, 3, 3, 0]])
    nothing = torch.zeros(0)
    batch = PromptBatch(nothing, nothing, nothing, nothing, nothing, branch, branch, branch, branch, shared)
    mask = batch.mask()
    assert mask is not None and mask.shape == (1, 1, 8, 8)
    assert ["".join("x" if seen else "." for seen in row) for row in mask[0, 0].tolist()] == [
        "x.......",
        "xx......",
        "xxx.....",
        "xxxx....",
        "xx..x...",
        "xxx..x..",
        "xxx..xx.",
        ".......x",
    ]


def test_histories_of_a_window_begin_alike(tiny_clicks: Dataset) -> None:
    first, count = int(tiny_clicks.offsets[1]), int(tiny_clicks.offsets[2] - tiny_clicks.offsets[1])
    assert count >= 12
    rows = first + np.arange(12)
    start = history_start(tiny_clicks, rows, k=3, window=4) - first
    assert start.tolist() == [0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 8]
    told = in_time(recent_history(tiny_clicks, rows, 3, 4))
    for row, begin, history in zip(rows, start, told, strict=True):
        assert history[history >= 0].tolist() == list(range(first + begin, row))
    assert told.shape == (12, 6) and 3 <= (told[3:] >= 0).sum(1).min()
    with pytest.raises(InputError, match="only with channels: recent"):
        Retriever("none", window=4)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_cpu_is_that_of_transformers(llama: nn.Module, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 256, (3, 20), generator=generator)
    mask = None
    if masked:  # one sees all before it, one every other
        own, before = torch.eye(20, dtype=torch.bool), torch.ones(20, 20, dtype=torch.bool).tril()
        mask = torch.stack([before, own | before & (torch.rand(20, 20, generator=generator) < 0.5), own])[:, None]
    with torch.no_grad():
        exact = llama(input_ids=ids, attention_mask=mask).last_hidden_state
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = llama(input_ids=ids, attention_mask=mask).last_hidden_state
        llama.config._attn_implementation = "sdpa"
        try:
            theirs = llama(input_ids=ids, attention_mask=mask).last_hidden_state
        finally:
            cpu_attention(llama)
    torch.testing.assert_close(exact, theirs)
    assert (ours.float() - exact).abs().max() < 0.05
