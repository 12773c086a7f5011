"""LightGCN against torch_geometric's, the sparse products against dense ones, and what the graph may contain."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from msmrec.artifacts import InputError
from msmrec.cli import train
from msmrec.columns import TRAIN
from msmrec.data.batches import EvalLoader
from msmrec.data.edges import EdgeBatch, EdgeLoader, training_edges
from msmrec.data.prepare import Dataset
from msmrec.finished_run import evaluate
from msmrec.models.lightgcn import LightGCN, NegativeSampler, bpr_loss, edge_softmax_loss, normalised_graph, propagate

CPU = torch.device("cpu")


def edges(tiny: Dataset, above: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    user, item = training_edges(tiny, above)
    return torch.from_numpy(user).long(), torch.from_numpy(item).long()


def lightgcn(tiny: Dataset, **options: object) -> LightGCN:
    torch.manual_seed(0)
    model = LightGCN(tiny.num_users, tiny.num_items, embedding_dim=8, **options)  # type: ignore[arg-type]
    model.set_edges(*edges(tiny, model.edges_above))
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return model


# -- the graph --------------------------------------------------------------------------------------------------------


def test_normalisation_by_hand() -> None:
    # u1: i1, i2; u2: i1; u3: nothing. Degrees: u1 2, u2 1, i1 2, i2 1.
    graph = normalised_graph(torch.tensor([1, 1, 2]), torch.tensor([1, 2, 1]), num_users=3, num_items=2).to_dense()
    expected = torch.zeros(7, 7)  # users 0..3, items 0..2
    for user, item, value in [(1, 1, 0.5), (1, 2, 0.5**0.5), (2, 1, 0.5**0.5)]:
        expected[user, 4 + item] = expected[4 + item, user] = value
    torch.testing.assert_close(graph, expected)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_propagation_and_its_gradient_equal_the_dense_mean_of_layers(tiny: Dataset, num_layers: int) -> None:
    graph = normalised_graph(*edges(tiny), tiny.num_users, tiny.num_items)
    graph = torch.sparse_csr_tensor(
        graph.crow_indices(), graph.col_indices(), graph.values().double(), graph.shape, check_invariants=True
    )
    dense, x = graph.to_dense(), torch.randn(graph.shape[0], 3, dtype=torch.double, requires_grad=True)
    layers = [x]
    for _ in range(num_layers):
        layers.append(dense @ layers[-1])
    expected, made = torch.stack(layers).mean(0), propagate(x, graph, num_layers)
    torch.testing.assert_close(made, expected)
    weight = torch.randn_like(x)
    torch.testing.assert_close(
        torch.autograd.grad((made * weight).sum(), x), torch.autograd.grad((expected * weight).sum(), x)
    )


def test_nodes_without_edges_keep_their_share_and_nothing_is_nan() -> None:
    model = LightGCN(3, 4, embedding_dim=8, num_layers=2, temperature=0.1)
    model.set_edges(torch.tensor([1, 1, 2]), torch.tensor([1, 2, 1]))
    with torch.no_grad():
        vectors, own = model(), model.embedding.weight
    for lonely in (3, 4 + 3, 4 + 4):  # user 3, items 3 and 4
        torch.testing.assert_close(vectors[lonely], own[lonely] / 3)
    assert (vectors[[0, 4]] == 0).all()  # the paddings
    with torch.no_grad():
        assert model.user_vectors().isfinite().all() and model.item_embeddings().isfinite().all()


def test_nodes_without_edges_leave_no_vectors() -> None:
    model = LightGCN(3, 4, embedding_dim=8)
    model.set_edges(torch.tensor([1, 1, 2]), torch.tensor([1, 2, 1]))
    left = model.vectors_to_export()
    assert left["user_embeddings"].any(1).tolist() == [False, True, True, False]
    assert left["item_embeddings"].any(1).tolist() == [False, True, True, False, False]
    torch.testing.assert_close(left["item_embeddings"][1:3], model.item_embeddings()[1:3])


def test_propagation_is_float32_under_autocast(tiny: Dataset) -> None:
    model = lightgcn(tiny).eval()
    with torch.no_grad():
        expected = model()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.eval()(), expected)


def test_only_training_rows_are_edges(tiny: Dataset, tmp_path: Path) -> None:
    table = pl.read_parquet(tiny.folder / "interactions.parquet")
    # The same dataset, but every validation and test row is about other items.
    other = pl.when(pl.col("split") == TRAIN).then(pl.col("item_id")).otherwise(tiny.num_items + 1 - pl.col("item_id"))
    table.with_columns(other.cast(pl.Int32).alias("item_id")).write_parquet(tmp_path / "interactions.parquet")
    (tmp_path / "dataset.json").write_text((tiny.folder / "dataset.json").read_text())
    changed = Dataset(tmp_path)
    assert (changed.item_id != tiny.item_id).any()
    for mine, its in zip(edges(tiny), edges(changed), strict=True):
        assert torch.equal(mine, its)
    assert len(edges(tiny)[0]) == tiny.info["num_train"]


def test_the_leak_is_all_rows_but_each_users_last(tiny_clicks: Dataset) -> None:
    user, item = training_edges(tiny_clicks, leak=True)
    assert len(user) == len(tiny_clicks.item_id) - tiny_clicks.num_users
    last = {(u, tiny_clicks.item_id[tiny_clicks.offsets[u + 1] - 1]) for u in range(1, tiny_clicks.num_users + 1)}
    assert not last & set(zip(user.tolist(), item.tolist(), strict=True))
    honest = set(zip(*(x.tolist() for x in training_edges(tiny_clicks)), strict=True))
    assert len(honest) < len(user)


def test_edges_above_a_rating(tiny: Dataset) -> None:
    rows = (tiny.column("split") == TRAIN) & (tiny.column("rating") > 3)
    loader = EdgeLoader(tiny, 50, CPU, above=3)
    users = torch.cat([batch.user_id for batch in loader])
    assert 0 < rows.sum() < tiny.info["num_train"]
    assert torch.equal(users.sort().values, torch.from_numpy(tiny.user_id[rows]).long())
    with pytest.raises(InputError, match="edges_above"):
        EdgeLoader(tiny, 50, CPU, above=99)


def test_edge_batches_are_reproducible_and_shared_among_processes(tiny: Dataset) -> None:
    def pairs(epoch: int, **options: int) -> list[tuple[int, int]]:
        loader = EdgeLoader(tiny, 64, CPU, seed=3, **options)
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader) and max(batch.num_tokens for batch in batches) <= 64
        return [pair for b in batches for pair in zip(b.user_id.tolist(), b.pos_item.tolist(), strict=True)]

    whole = pairs(1)
    assert whole == pairs(1) != pairs(2) and sorted(whole) == sorted(pairs(2))
    shares = [pairs(1, rank=rank, world_size=3) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1  # nobody waits
    assert not set(shares[0]) & set(shares[1]) and set().union(*shares) <= set(whole)
    assert sum(map(len, shares)) > len(whole) - 3
    grouped = pairs(1, by_user=True)
    assert sorted(grouped) == sorted(whole) and grouped != pairs(2, by_user=True)
    users = [user for user, _ in grouped]
    assert sum(a != b for a, b in pairwise(users)) == len(set(users)) - 1


# -- negatives and losses ---------------------------------------------------------------------------------------------


def test_negatives_are_uniform_over_what_the_user_has_no_edge_to(tiny: Dataset) -> None:
    user, item = edges(tiny)
    torch.manual_seed(0)
    drawn = NegativeSampler(user, item, tiny.num_users, tiny.num_items).draw(torch.arange(1, tiny.num_users + 1), 4000)
    for one in range(1, tiny.num_users + 1):
        count = np.bincount(drawn[one - 1].numpy(), minlength=tiny.num_items + 1)
        own = set(item[user == one].tolist())
        free = [i for i in range(1, tiny.num_items + 1) if i not in own]
        assert count[free].sum() == 4000 and count[free].min() > 0
        assert abs(count[free] / 4000 * len(free) - 1).max() < 0.9  # six deviations


def test_a_user_of_all_items_does_not_break_the_draw() -> None:
    sampler = NegativeSampler(torch.tensor([1, 1, 1, 2]), torch.tensor([1, 2, 3, 2]), num_users=3, num_items=3)
    assert (sampler.draw(torch.tensor([1]), 9) == 3).all()
    assert set(sampler.draw(torch.tensor([2]), 99).flatten().tolist()) == {1, 3}
    assert set(sampler.draw(torch.tensor([3]), 99).flatten().tolist()) == {1, 2, 3}


@pytest.mark.parametrize("num_layers", [0, 2, 3])
def test_scores_loss_and_gradient_equal_torch_geometric(tiny: Dataset, num_layers: int) -> None:
    reference = pytest.importorskip("torch_geometric.nn.models")
    model = lightgcn(tiny, num_layers=num_layers, l2=0.01)
    theirs = reference.LightGCN(len(model.embedding.weight), 8, num_layers)
    theirs.embedding.weight.data.copy_(model.embedding.weight)
    user, item = edges(tiny)
    first = tiny.num_users + 1
    edge_index = torch.stack([torch.cat([user, item + first]), torch.cat([item + first, user])])

    batch = next(iter(EvalLoader(tiny, 1, 10, 16, CPU)))
    with torch.no_grad():
        users, items = batch.user_id.repeat_interleave(tiny.num_items), torch.arange(1, tiny.num_items + 1).repeat(16)
        expected = theirs(edge_index, torch.stack([users, items + first])).view(16, -1)
        torch.testing.assert_close(model.eval().scores(batch)[:, 1:], expected)

    model.train()
    rows = EdgeBatch(user[:40], item[:40])
    torch.manual_seed(5)
    loss = model.training_step(rows, 0)
    torch.manual_seed(5)
    assert model.sampler is not None
    negative = model.sampler.draw(rows.user_id, 1)[:, 0]
    ends = torch.stack([rows.user_id.repeat(2), torch.cat([rows.pos_item, negative]) + first])
    positive_rank, negative_rank = theirs(edge_index, ends).chunk(2)
    nodes = torch.cat([rows.user_id, ends[1]])
    expected_loss = theirs.recommendation_loss(positive_rank, negative_rank, nodes, lambda_reg=0.01)
    torch.testing.assert_close(loss, expected_loss)
    loss.backward()
    expected_loss.backward()
    torch.testing.assert_close(model.embedding.weight.grad, theirs.embedding.weight.grad)


def test_bpr_over_several_negatives_is_their_mean() -> None:
    user, positive, negative = torch.randn(5, 8), torch.randn(5, 8), torch.randn(5, 3, 8)
    each = [-F.logsigmoid((user * (positive - negative[:, k])).sum(1)).mean() for k in range(3)]
    torch.testing.assert_close(bpr_loss(user, positive, negative), torch.stack(each).mean())


def test_softmax_that_shares_users_equals_cross_entropy() -> None:
    torch.manual_seed(0)
    users, items = torch.randn(9, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    user_id, pos_item = torch.randint(0, 9, (50,)), torch.randint(0, 30, (50,))
    loss = edge_softmax_loss(user_id, pos_item, users, items)
    expected = F.cross_entropy(users[user_id] @ items.T, pos_item)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(3 * loss, (users, items)), torch.autograd.grad(3 * expected, (users, items))
    )


def test_softmax_step_and_the_sampled_one(tiny: Dataset) -> None:
    rows = EdgeBatch(*(x[:40] for x in edges(tiny)))
    model = lightgcn(tiny, loss="softmax", temperature=0.2, l2=0.0)
    whole = model.training_step(rows, 0)
    queries = model.user_vectors()[rows.user_id] @ model.item_embeddings()[1:].T
    torch.testing.assert_close(whole, F.cross_entropy(queries, rows.pos_item - 1))
    model = lightgcn(tiny, loss="softmax", temperature=0.2, l2=0.0, num_negatives=30)
    losses = torch.stack([model.training_step(rows, 0).detach() for _ in range(200)])
    assert abs(losses.mean() - whole).item() < 0.05 and losses.std() > 0
    with pytest.raises(InputError, match="num_negatives"):
        lightgcn(tiny, num_negatives=0)


# -- runs -------------------------------------------------------------------------------------------------------------


def test_vectors_are_propagated_once_an_evaluation_and_never_stale(tiny: Dataset) -> None:
    model = lightgcn(tiny).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        first = model()
        assert model() is first
    model.train()
    model.training_step(EdgeBatch(*(x[:40] for x in edges(tiny))), 0).backward()
    optimizer.step()
    with torch.no_grad():
        assert not torch.equal(model.eval()(), first)
    state = {"embedding.weight": torch.zeros_like(model.embedding.weight)}
    assert list(model.state_dict()) == list(state)  # the graph is not in the checkpoint
    model.load_state_dict(state)
    with torch.no_grad():
        assert (model() == 0).all()


@pytest.mark.parametrize("config", ["lightgcn_ml1m.yaml", "lightgcn_ml1m_clicks.yaml"])
def test_a_run_resumed_equals_an_uninterrupted_one_and_is_evaluated_again(
    config: str, tiny_root: Path, cache: Path, tmp_path: Path
) -> None:
    source = {"num_users": 120, "num_items": 60, "mean_interactions": 14, "num_modalities": 3, "num_aspects": 4}
    args = ["--config", config, "--data.source", "Simulated"]
    args += [f"--data.source.init_args.{key}={value}" for key, value in source.items()]
    args += ["--data.root", str(tiny_root), "--data.cache", str(cache), "--data.batch_size=256"]
    args += ["--model.init_args.loss=bpr", "--model.init_args.schedule=constant"]  # draws random numbers; no length
    args += ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.check_val_every_n_epoch=1"]
    whole = train([*args, "--trainer.max_epochs=3", "--run_dir", str(tmp_path / "whole")])
    cut = train([*args, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "cut")])
    (cut / "metrics.json").unlink()  # as if it had not finished
    train([*args, "--trainer.max_epochs=3", "--run_dir", str(cut)])
    records = [json.loads((run / "metrics.json").read_text()) for run in (whole, cut)]
    assert records[0]["test"] == records[1]["test"] and records[0]["train"]["epochs"] == 3
    vectors = [load_file(run / "item_embeddings.safetensors") for run in (whole, cut)]
    for name, size in (("item_embeddings", "num_items"), ("user_embeddings", "num_users")):
        assert torch.equal(vectors[0][name], vectors[1][name])
        assert vectors[0][name].shape == (records[0]["dataset"][size] + 1, 64)
    again = evaluate(["--run", str(whole), "--split", "test"])
    assert {k.split("/")[1]: v for k, v in again.items()} == records[0]["test"]
