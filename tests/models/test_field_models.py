"""Field models: each against its formula worked out by hand, unknown values, padding, and the command line."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.cli import train
from msmrec.columns import TRAIN
from msmrec.data.prepare import Dataset
from msmrec.data.samples import SampleBatch, SampleLoader, sample_rows
from msmrec.finished_run import evaluate
from msmrec.models.din import DIN, TargetAttention
from msmrec.models.field_base import FieldModel
from msmrec.models.field_models import CIN, DCN, AutoInt, CrossMatrix, CrossVector, DCNv2, DeepFM, pairwise_sum, xDeepFM
from msmrec.models.fields import FieldEmbedding, _codes, default_fields, encode_fields

MODELS = {"deepfm": DeepFM, "xdeepfm": xDeepFM, "dcn": DCN, "dcnv2": DCNv2, "autoint": AutoInt, "din": DIN}


def batch_of(data: Dataset, split: int = TRAIN, size: int = 32, max_history: int = 8) -> SampleBatch:
    return next(iter(SampleLoader(data, split, 3.0, max_history, size, torch.device("cpu"), shuffle=False)))


def made(cls: type[FieldModel], data: Dataset, **settings: Any) -> FieldModel:
    torch.manual_seed(0)
    model = cls(embedding_dim=8, hidden=(16, 8), **settings)
    model.make(encode_fields(data, 3.0, None, None))
    torch.nn.init.normal_(model.embedding.table.weight[1:])
    return model.eval()


@pytest.mark.parametrize("history", [(), (3, 8)])
@pytest.mark.parametrize("cls", MODELS.values())
def test_logits_are_finite_and_do_not_see_the_label(
    cls: type[FieldModel], history: tuple[int, ...], tiny_clicks: Dataset
) -> None:
    model, batch = made(cls, tiny_clicks, history=history), batch_of(tiny_clicks)
    logits = model.logits(batch)
    assert logits.shape == (32,) and logits.isfinite().all()
    assert torch.equal(logits, model.logits(batch._replace(label=1 - batch.label)))
    logits.sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused


@pytest.mark.parametrize("cls", MODELS.values())
def test_more_padding_changes_nothing(cls: type[FieldModel], tiny_clicks: Dataset) -> None:
    model, batch = made(cls, tiny_clicks), batch_of(tiny_clicks)
    pad = torch.nn.functional.pad
    longer = batch._replace(item_seq=pad(batch.item_seq, (0, 7)), rating_seq=pad(batch.rating_seq, (0, 7)))
    torch.testing.assert_close(model.logits(longer), model.logits(batch))


# -- formulas ---------------------------------------------------------------------------------------------------------


def test_pairwise_sum_is_the_sum_over_pairs() -> None:
    x = torch.randn(5, 6, 4)
    expected = sum((x[:, i] * x[:, j]).sum(1) for i, j in combinations(range(6), 2))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(pairwise_sum(x), expected)


def test_deepfm_is_weights_and_pairs_and_mlp(tiny_clicks: Dataset) -> None:
    model, batch = made(DeepFM, tiny_clicks, history=()), batch_of(tiny_clicks)
    rows = model.embedding(batch.user_id, batch.target_item)  # (B, F, D + 1)
    expected = torch.stack(
        [
            row[:, 8].sum()
            + sum(row[i, :8] @ row[j, :8] for i, j in combinations(range(len(row)), 2))
            + model.deep(row[:, :8].flatten())[0]
            for row in rows
        ]
    )
    torch.testing.assert_close(model.logits(batch), expected)


def test_cin_is_its_sum_over_pairs_of_rows() -> None:
    torch.manual_seed(0)
    cin, x0 = CIN(3, (4, 2)), torch.randn(2, 3, 5)
    for b in range(2):
        rows, out = x0[b], []
        for mix in cin.mix:
            weight = mix.weight.view(-1, len(rows), 3)  # type: ignore[operator]
            after = torch.zeros(len(weight), 5)
            for h in range(len(weight)):
                for i in range(len(rows)):
                    for j in range(3):
                        after[h] += weight[h, i, j] * rows[i] * x0[b, j]
            rows = after
            out.append(rows.sum(1))
        torch.testing.assert_close(cin(x0)[b], torch.cat(out))


def test_cross_layers_are_the_papers() -> None:
    torch.manual_seed(0)
    x0, vector, matrix = torch.randn(7), CrossVector(7, 2), CrossMatrix(7, 2)
    torch.nn.init.normal_(vector.bias)
    x = x0
    for w, b in zip(vector.weight, vector.bias, strict=True):
        x = torch.outer(x0, x) @ w + b + x  # x_0 x_l^T w_l + b_l + x_l
    torch.testing.assert_close(vector(x0[None])[0], x)
    x = x0
    for layer in matrix.layers:
        x = x0 * (layer.weight @ x + layer.bias) + x  # type: ignore[operator]
    torch.testing.assert_close(matrix(x0[None])[0], x)


def test_a_low_rank_cross_layer_has_a_matrix_of_that_rank() -> None:
    first, second = CrossMatrix(7, 1, rank=2).layers[0]  # type: ignore[misc]
    assert torch.linalg.matrix_rank(second.weight @ first.weight) == 2


def test_stacked_dcnv2_reads_only_the_crossed(tiny_clicks: Dataset) -> None:
    model, batch = made(DCNv2, tiny_clicks, structure="stacked", rank=4), batch_of(tiny_clicks)
    x = model.features(batch)[0].flatten(1)
    torch.testing.assert_close(model.logits(batch), model.out(model.deep(model.cross(x))).squeeze(1))


def test_autoint_attends_over_fields_head_by_head(tiny_clicks: Dataset) -> None:
    model, batch = made(AutoInt, tiny_clicks, attention_dim=6, num_heads=2), batch_of(tiny_clicks)
    layer, x = model.attention[0], model.features(batch)[0][0]  # (F, D)
    heads = []
    for h in range(2):
        rows = slice(3 * h, 3 * h + 3)
        query, key, value = (m.weight[rows] @ x.T for m in (layer.query, layer.key, layer.value))  # (3, F)
        weight = torch.softmax(query.T @ key, 1)
        heads.append(weight @ value.T)
    expected = torch.relu(torch.cat(heads, 1) + x @ layer.residual.weight.T)
    torch.testing.assert_close(layer(x[None])[0], expected)


def test_din_attention_is_a_loop_over_the_history() -> None:
    torch.manual_seed(0)
    attention = TargetAttention(4, (6, 3))
    q, keys, length = torch.randn(3, 4), torch.randn(3, 5, 4), [5, 2, 0]
    real = torch.arange(5) < torch.tensor(length)[:, None]
    # the first layer's four parts side by side are one matrix on [k, q, k - q, k * q]
    parts = (attention.key, attention.query, attention.difference, attention.product)
    matrix = torch.cat([part.weight for part in parts], 1)
    for b in range(3):
        total = torch.zeros(4)
        for k in keys[b, : length[b]]:
            unit = matrix @ torch.cat([k, q[b], k - q[b], k * q[b]]) + attention.query.bias
            total = total + attention.unit(unit) * k
        torch.testing.assert_close(attention(q, keys, real)[b], total)


# -- fields -----------------------------------------------------------------------------------------------------------


def test_values_that_no_training_sample_has_share_the_unknown_row(tiny_clicks: Dataset) -> None:
    fields = encode_fields(tiny_clicks, 3.0, ["user_id"], ["item_id"])
    rows = sample_rows(tiny_clicks, TRAIN)
    for codes, ids in ((fields.user_codes, tiny_clicks.user_id), (fields.item_codes, tiny_clicks.item_id)):
        trained = np.zeros(len(codes), dtype=bool)
        trained[ids[rows]] = True
        unknown = codes[0, 0]
        assert (codes[~trained, 0] == unknown).all() and (codes[trained, 0] > unknown).all()
        assert codes[trained, 0].unique().numel() == trained.sum()
    assert (fields.user_codes == fields.user_codes[0]).sum() > 1  # some users do come later


def test_lists_are_means_and_only_of_known_values(tiny_clicks: Dataset) -> None:
    genres = [["a", "b"], ["b"], [], None, ["c"], ["a", "c", "b"]]
    count = tiny_clicks.num_items
    data = Dataset(tiny_clicks.folder)
    data.items = tiny_clicks.items.with_columns(genres=pl.Series((genres * count)[:count], dtype=pl.List(pl.String)))
    trained = set(tiny_clicks.item_id[sample_rows(tiny_clicks, TRAIN)].tolist())
    assert {1, 2, 3, 4, 6} <= trained and "genres" in default_fields(data.items)
    embedding = FieldEmbedding(encode_fields(data, 3.0, [], ["item_id", "genres"]), 4)
    ab, b, none, null, acb = (embedding(torch.tensor([1]), torch.tensor([k]))[0, 1] for k in (1, 2, 3, 4, 6))
    assert torch.equal(none, null) and none.any()
    for value in (2 * ab - b, b, 3 * acb - 2 * ab):  # a, b, c
        assert torch.isclose(embedding.table.weight, value, atol=1e-6).all(1).any()


def test_history_is_pooled_by_what_was_liked(tiny_clicks: Dataset) -> None:
    embedding = FieldEmbedding(encode_fields(tiny_clicks, 3.0, None, None), 4)
    batch = batch_of(tiny_clicks)
    pooled = embedding.pooled(batch, *embedding.history(batch), (3, 8))
    for b in range(len(pooled)):
        length = int(batch.seq_len[b])
        for window, part in ((3, pooled[b, :3]), (8, pooled[b, 3:])):
            latest = slice(max(length - window, 0), length)
            items, ratings = batch.item_seq[b, latest], batch.rating_seq[b, latest]
            vectors = embedding.items(items)
            for k, group in enumerate((ratings > 3, ratings <= 3)):
                torch.testing.assert_close(part[k], vectors[group].mean(0) if group.any() else torch.zeros(4))
            real = torch.ones(1, 1, dtype=torch.bool)
            given = torch.stack([embedding.rated(r.view(1, 1), real)[0, 0] for r in ratings])
            torch.testing.assert_close(part[2], given.mean(0))


def test_id_dropout_reads_ids_as_unknown_in_training_only(tiny_clicks: Dataset) -> None:
    embedding = FieldEmbedding(encode_fields(tiny_clicks, 3.0, None, None), 4, id_dropout=1.0)
    batch = batch_of(tiny_clicks)
    hidden = embedding.train()(batch.user_id, batch.target_item)
    shown = embedding.eval()(batch.user_id, batch.target_item)
    changed = (hidden != shown).any(2)
    names = [name for name, _ in embedding.spans]
    for k, name in enumerate(names):
        assert changed[:, k].all() == (name in ("user_id", "item_id")) and (changed[:, k].any() == changed[:, k].all())
    assert hidden[:, names.index("user_id")].unique(dim=0).shape[0] == 1


def test_mistakes_are_one_line(tiny_clicks: Dataset) -> None:
    with pytest.raises(InputError, match=r"model.user_fields: no shoe_size among the users' columns \(.*user_id") as e:
        encode_fields(tiny_clicks, 3.0, ["user_id", "shoe_size"], None)
    assert "\n" not in str(e.value)
    model = DIN()
    model.make(encode_fields(tiny_clicks, 3.0, None, ["year"]))
    with pytest.raises(InputError, match="item_fields must list item_id"):
        model.logits(batch_of(tiny_clicks))
    with pytest.raises(InputError, match="must be a multiple"):
        AutoInt(attention_dim=7)


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_args(tiny_root: Path, cache: Path) -> list[str]:
    tiny = ["num_users=120", "num_items=60", "mean_interactions=14", "num_modalities=3", "num_aspects=4"]
    return [
        *["--data.source", "Simulated", *(f"--data.source.init_args.{setting}" for setting in tiny)],
        *["--data.root", str(tiny_root), "--data.cache", str(cache), "--data.batch_size=64"],
        *["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"],
    ]


@pytest.mark.parametrize("name", MODELS)
def test_trains_and_is_evaluated_again_from_its_checkpoint_alone(
    name: str, tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["--config", f"{name}_ml1m.yaml", *tiny_args, "--run_dir", str(tmp_path / "run")]
    run = train([*args, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"])
    monkeypatch.setattr("msmrec.models.field_base.encode_fields", None)  # nothing is encoded again
    metrics = evaluate(["--run", str(run), "--trainer.enable_progress_bar", "false"])
    recorded = (run / "metrics.json").read_text()
    assert all(f"{value}" in recorded for value in metrics.values()) and 0 < metrics["test/auc"] < 1
    with pytest.raises(InputError, match="not a checkpoint of this config's model"):
        evaluate(["--run", str(run), "--model.init_args.embedding_dim=12", "--trainer.enable_progress_bar", "false"])


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tiny_args: list[str], tmp_path: Path) -> None:
    args = ["--config", "din_ml1m.yaml", *tiny_args, "--model.init_args.schedule=constant"]
    whole = train([*args, "--trainer.max_epochs=2", "--run_dir", str(tmp_path / "whole")])
    first = train([*args, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "first")])
    last = ["--ckpt_path", str(first / "checkpoints" / "last.ckpt"), "--trainer.max_epochs=2"]
    second = train([*args, *last, "--run_dir", str(tmp_path / "second")])
    states = [torch.load(r / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"] for r in (whole, second)]
    assert len(states[0]) > 10 and all(torch.equal(v, states[1][name]) for name, v in states[0].items())


def test_item_vectors_are_left_for_others(tiny_clicks: Dataset) -> None:
    model = DCN(history=(3,), embedding_dim=4, hidden=(8,))
    model.make(encode_fields(tiny_clicks, 3.0, None, None))
    vectors = model.vectors_to_export()["item_embeddings"]
    assert vectors.shape == (tiny_clicks.num_items + 1, 4) and not vectors[0].any() and vectors[1:].any(1).all()


def codes_by_hand(column: pl.Series, trained: np.ndarray) -> tuple[np.ndarray, int]:
    lists = [v if isinstance(v, list) else [] if v is None else [v] for v in column.to_list()]
    values = sorted({v for row, known in zip(lists, trained, strict=True) if known for v in row if v is not None})
    known = [[values.index(v) + 1 for v in row if v in values] for row in lists]
    codes = np.zeros((len(lists), max([1, *map(len, known)])), dtype=np.int64)
    for row, found in zip(codes, known, strict=True):
        row[: len(found)] = found
    return codes, len(values)


def test_codes_are_those_of_plain_python() -> None:
    rng = np.random.default_rng(0)
    letters = ["é", "z", "Z", "a", "", "日", "😀", "b10", "b9"]  # among them what bytes and words might order otherwise
    words = pl.Series([None if k == 9 else letters[k] for k in rng.integers(0, 10, 80)])
    lists = pl.Series(
        [[None if k == 9 else letters[k] for k in rng.integers(0, 10, n)] for n in rng.integers(0, 5, 80)]
    )
    lists = pl.concat([lists, pl.Series([None], dtype=lists.dtype)]).tail(80)
    numbers = pl.Series(rng.integers(-5, 5, 80))
    columns = [
        words, lists, words.cast(pl.Categorical), lists.cast(pl.List(pl.Categorical)), words.cast(pl.Enum(letters)),
        numbers, numbers.cast(pl.Int8).replace(3, None), numbers > 0, pl.Series([[k] * 2 for k in numbers]),
        pl.Series([[k, 1] for k in numbers], dtype=pl.Array(pl.Int64, 2)), pl.Series([None] * 80),
        pl.Series([None] * 80, dtype=pl.String), pl.Series([[]] * 80, dtype=pl.List(pl.String)),
        pl.int_range(80, eager=True),
    ]  # fmt: skip
    for column in columns:
        for trained in (rng.random(80) < 0.2, np.zeros(80, bool), np.ones(80, bool)):
            expected, count = codes_by_hand(column, trained)
            codes, found = _codes(column, trained)
            np.testing.assert_array_equal(codes, expected, strict=True)
            assert found == count
