"""The two-stage recommender of RAG-VisualRec: nearest items to a user's vector, then, if asked for, re-ranked.

    features ─fusion─▶ item vectors ─training part─▶ user vectors ─kNN─▶ candidates ─Reranker─▶ list

Nothing is trained. One run compares variants of all this; candidates and re-ranked lists are kept in the cache by the
fingerprint of what they depend on, so that a further variant costs only itself.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from msmrec.artifacts import InputError, atomic_file, build_once, fingerprint
from msmrec.columns import COUNT, ITEM_ID, RATING, RAW_USER_ID, SPLIT, SPLITS, TRAIN, USER_ID
from msmrec.data.batches import EvalBatch, EvalLoader
from msmrec.data.catalogue import catalogue_of, genre_tastes
from msmrec.data.datamodule import RecDataModule
from msmrec.fusion import Fusion, Kind
from msmrec.learned_fusion import liked_pairs
from msmrec.markdown import markdown
from msmrec.media.features import Features, ItemFeatures
from msmrec.metrics.beyond_accuracy import TIERS
from msmrec.models.base import Module
from msmrec.models.rec_module import seen_filter
from msmrec.recommend.candidates import Candidates, nearest_unseen
from msmrec.recommend.list_metrics import list_metrics, targets_of
from msmrec.recommend.rerank import Reranked, Reranker
from msmrec.recommend.users import UserKind, user_vectors

FORMAT = 1  # raise when user vectors or candidates give something else for the same inputs
COLUMNS = {
    "recall@10": "recall@10", "ndcg@10": "NDCG@10", "map@10": "MAP@10", "mrr@10": "MRR@10", "retrieval": "recall@N",
    "coverage@10": "coverage", "novelty@10": "novelty", "diversity@10": "diversity", "tail_fraction@10": "tail",
    "calibration@10": "calibration", "cold_recall@10": "cold recall@10", "cold_list_recall@10": "cold list recall@10",
}  # fmt: skip


@dataclass
class Variant:
    """One recommender of the comparison: a row of its table."""

    features: list[str]
    """Which of the model's features; several are fused."""
    user: UserKind = "temporal"
    """How a user's vector is made of items: random, average or temporal."""
    fusion: Kind | None = None
    """How several features become one vector."""
    dim: int | None = None
    """Width after fusion; by default the fusion's own."""
    candidates: int = 50
    """N, how many items the first stage hands on."""
    rerank: bool = False
    """Whether the second stage puts the candidates into a new order."""


class TwoStage(Module):
    """Recommends what lies near to what a user liked.

    Args:
        features: kinds of item vectors by name.
        variants: the recommenders to compare, by name.
        reranker: the second stage of the variants that have one.
        liked: the lowest rating of a training item that counts for the user's vector.
        recency_rate: slope of temporal user vectors, see msmrec.recommend.users.
        cutoffs: k of the ranking metrics.
    """

    monitor = "val/ndcg@10"
    headline = ("recall@10", "ndcg@10")
    trains = False

    def __init__(
        self,
        features: dict[str, ItemFeatures],
        variants: dict[str, Variant],
        reranker: Reranker | None = None,
        liked: float = 4.0,
        recency_rate: float = 1.0,
        cutoffs: tuple[int, ...] = (5, 10),
    ) -> None:
        super().__init__()
        for name, variant in variants.items():
            where = f"model.variants.{name}"
            if unknown := set(variant.features) - set(features):
                raise InputError(f"{where}.features: no {sorted(unknown)[0]} among {', '.join(features)}")
            if not variant.features or (len(variant.features) > 1) != (variant.fusion is not None):
                raise InputError(f"{where}: give one of the features, or several and a fusion")
            if variant.candidates < max(10, *cutoffs):
                raise InputError(f"{where}.candidates {variant.candidates}: give at least {max(10, *cutoffs)}")
            if variant.rerank and reranker is None:
                raise InputError(f"{where}.rerank: there is no model.reranker; name one, or leave rerank out")
            if "/" in name:
                raise InputError(f"{where}: a name without a slash, which separates the parts of a metric's name")
        if not variants:
            raise InputError("model.variants is empty: name at least one")
        self.features, self.variants, self.reranker = features, variants, reranker
        self.liked, self.recency_rate, self.cutoffs = liked, recency_rate, cutoffs
        self.counts: dict[str, dict[str, int]] = {}  # variant -> what happened to how many users
        self.lists: dict[str, pl.DataFrame] = {}  # variant -> user_id, place, item_id, score, reason
        self.per_user: dict[str, pl.DataFrame] = {}  # variant -> user_id and metrics
        self._raw: dict[str, Features] = {}
        self._fused: dict[str, Features] = {}

    # -- what the trainer asks for ------------------------------------------------------------------------------------

    def train_loader(self, data: RecDataModule) -> Any:
        """Never asked for."""
        raise InputError("TwoStage has nothing to train: python evaluate.py --config ...")

    def eval_loader(self, data: RecDataModule, split: int) -> EvalLoader:
        """Users that have items in the part."""
        device, rank, world_size = data.place()
        return EvalLoader(data.dataset, split, 1, data.eval_batch_size, device, rank, world_size)

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """Full ranking by cosine; who was left out, and what happened to users."""
        evaluated = max((len(table) for table in self.per_user.values()), default=0)
        return {
            **super().protocol(data),
            "candidates": "all items with a vector",
            "seen_filter": seen_filter(data.dataset),
            "target_time_is_input": False,
            "user_vectors": "training part alone",
            "users_without_targets": data.num_users - evaluated,
            "users": self.counts,
        }

    def evaluate(self, batch: EvalBatch) -> tuple[Tensor, ...]:
        """(B,) users; everything else is done for all of them at once."""
        return (batch.user_id,)

    def finish(self, prefix: str, columns: list[Tensor]) -> dict[str, float]:
        """Metrics of every variant, under `<variant>/<metric>`."""
        data = self.data
        dataset, split = data.dataset, SPLITS[prefix]
        users = columns[0].cpu().numpy()
        users.sort()
        catalogue = catalogue_of(dataset, torch.device("cpu"))
        taste = genre_tastes(dataset, catalogue.genres, split)[users]
        targets = targets_of(dataset, users, split, catalogue.tier.numpy())
        cold = np.flatnonzero(catalogue.tier[1:].numpy() == TIERS.index("cold")) + 1
        result: dict[str, float] = {}
        for name, variant in self.variants.items():
            found, cold_found, ranked = self._recommend(data, name, variant, users, split, cold)
            per_user, overall = list_metrics(ranked.items, cold_found.items, targets, catalogue, taste, self.cutoffs)
            result |= {f"{name}/{metric}": value for metric, value in overall.items()}
            columns_of = {metric: value.numpy() for metric, value in per_user.items()}
            self.per_user[name] = pl.DataFrame({USER_ID: users.astype(np.int32), **columns_of}).fill_nan(None)
            self.lists[name] = _long(users, ranked, found)
        return result

    # -- the stages ---------------------------------------------------------------------------------------------------

    def _recommend(
        self, data: RecDataModule, name: str, variant: Variant, users: np.ndarray, split: int, cold: np.ndarray
    ) -> tuple[Candidates, Candidates, Reranked]:
        """Candidates of `users`, the same among cold items alone, and the list."""
        # The vectors themselves are the key: how they were fused, and by which version of what, is in them.
        features = self._item_vectors(data, variant)
        key = fingerprint(
            FORMAT, data.dataset.info["fingerprint"], split, _digest(users), _digest(features), variant.user,
            variant.candidates, self.liked, self.recency_rate, data.seed,
        )  # fmt: skip
        counts: Counter[str] = Counter()

        def build(folder: Path) -> None:
            mine = user_vectors(variant.user, data.dataset, features, self.liked, self.recency_rate, data.seed)
            vectors = mine.vectors
            for kind, (size, within) in {"all": (variant.candidates, None), "cold": (10, cold)}.items():
                nearest = nearest_unseen(data.dataset, features, vectors, users, split, size, within)
                pl.DataFrame({USER_ID: users, ITEM_ID: nearest.items, "score": nearest.scores}).write_parquet(
                    folder / f"{kind}.parquet"
                )
            pl.DataFrame({"what": list(mine.counts), "users": list(mine.counts.values())}).write_parquet(
                folder / "counts.parquet"
            )

        folder = build_once(data.cache / "candidates" / f"{data.dataset.info['name']}-{key}", build)
        found, cold_found = (_read(folder / f"{kind}.parquet") for kind in ("all", "cold"))
        counts.update(dict(pl.read_parquet(folder / "counts.parquet").iter_rows()))
        ranked = Reranked(found.items, Counter(), [{}] * len(users))
        if variant.rerank and self.reranker is not None:
            ranked = self._reranked(data, self.reranker, key, users, found)
            counts.update(ranked.counts)
        self.counts[name] = dict(counts)
        return found, cold_found, ranked

    def _reranked(
        self, data: RecDataModule, reranker: Reranker, key: str, users: np.ndarray, found: Candidates
    ) -> Reranked:
        """The second stage's lists, kept unless some of them fell back on the first stage.

        Then the model is asked again where a server failed; an answer that could not be used is kept and read again.
        """
        folder = data.cache / "lists" / f"{data.dataset.info['name']}-{fingerprint(key, reranker.fingerprint)}"
        if folder.is_dir():
            items = pl.read_parquet(folder / "lists.parquet")[ITEM_ID].to_numpy()
            counts = Counter(dict(pl.read_parquet(folder / "counts.parquet").iter_rows()))
            reasons: list[dict[int, str]] = [{} for _ in users]
            for row, item, reason in pl.read_parquet(folder / "reasons.parquet").iter_rows():
                reasons[row][item] = reason
            return Reranked(items, counts, reasons)
        ranked = reranker.rerank(data.dataset, users, found.items, found.scores, data.cache)

        def write(temporary: Path) -> None:
            pl.DataFrame({USER_ID: users, ITEM_ID: ranked.items}).write_parquet(temporary / "lists.parquet")
            pl.DataFrame({"what": list(ranked.counts), "users": list(ranked.counts.values())}).write_parquet(
                temporary / "counts.parquet"
            )
            said = [(row, item, why) for row, whys in enumerate(ranked.reasons) for item, why in whys.items()]
            pl.DataFrame(said, {"row": pl.Int64, ITEM_ID: pl.Int64, "reason": pl.String}, orient="row").write_parquet(
                temporary / "reasons.parquet"
            )

        if not any(what.startswith("fell back") for what in ranked.counts):
            build_once(folder, write)
        return ranked

    def _vectors(self, data: RecDataModule, kind: str) -> Features:
        if kind not in self._raw:
            self._raw[kind] = self.features[kind].vectors(data.dataset, data.root, data.cache)
        return self._raw[kind]

    def _item_vectors(self, data: RecDataModule, variant: Variant) -> Features:
        """One vector an item; fused once for all variants that differ in the user's vector only."""
        raw = [self._vectors(data, kind) for kind in variant.features]
        if variant.fusion is None:
            return raw[0]
        name = fingerprint(variant.features, variant.fusion, variant.dim)
        if name not in self._fused:
            warm = np.concatenate([[False], data.dataset.items[COUNT].to_numpy() > 0])
            likes = (data.dataset.column(SPLIT) == TRAIN) & (data.dataset.column(RATING) >= self.liked)
            pairs = liked_pairs(data.dataset.user_id[likes], data.dataset.item_id[likes], data.seed)
            fusion = Fusion(variant.fusion, variant.dim).fit(raw, warm, pairs, data.seed)
            self._fused[name] = fusion.transform(raw)
        return self._fused[name]

    # -- what a run leaves --------------------------------------------------------------------------------------------

    def report(self, run: Path, metrics: dict[str, float]) -> str:
        """A Markdown table, one row a variant, and below it what is to be known of its vectors."""
        rows: dict[str, dict[str, float]] = {}
        for key, value in metrics.items():
            _, name, metric = key.split("/", 2)
            rows.setdefault(name, {})["retrieval" if metric.startswith("retrieval_recall") else metric] = value
        shown = [metric for metric in COLUMNS if any(metric in row for row in rows.values())]
        lines = [
            [name, str(self.variants[name].candidates), *(f"{row[m]:.4f}" if m in row else "" for m in shown)]
            for name, row in rows.items()
        ]
        table = markdown(["variant", "N", *(COLUMNS[metric] for metric in shown)], lines)
        caveats = [f"{name}: {kind.caveat}" for name, kind in self.features.items() if kind.caveat]
        caveats += [
            f"{name}: {users:,} users keep the first stage's order, {what}"
            for name, counts in self.counts.items()
            for what, users in counts.items()
            if what.startswith("fell back")
        ]
        return "\n".join([str(run), table, *caveats])

    def save(self, run: Path) -> None:
        """Writes per_user.parquet and .csv (a row a user and variant) and lists.parquet (a row a place of a list)."""
        raw_ids = self.data.dataset.users.select(USER_ID, RAW_USER_ID)
        table = _stacked(self.per_user).join(raw_ids, on=USER_ID, how="left")
        with atomic_file(run / "per_user.parquet") as path:
            table.write_parquet(path)
        with atomic_file(run / "per_user.csv") as path:
            table.write_csv(path)
        with atomic_file(run / "lists.parquet") as path:
            _stacked(self.lists).write_parquet(path)


def _digest(arrays: np.ndarray | Features) -> str:
    digest = hashlib.blake2b()
    for array in arrays if isinstance(arrays, tuple) else (arrays,):
        digest.update(repr((array.shape, array.dtype)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: Path) -> Candidates:
    table = pl.read_parquet(path)
    return Candidates(table[ITEM_ID].to_numpy(), table["score"].to_numpy())


def _stacked(tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """All variants' rows, with a column `variant`; a metric that one of them lacks is null there."""
    named = [t.select(USER_ID, pl.lit(name).alias("variant"), pl.exclude(USER_ID)) for name, t in tables.items()]
    return pl.concat(named, how="diagonal")


def _long(users: np.ndarray, ranked: Reranked, found: Candidates) -> pl.DataFrame:
    """user_id, place (from 1), item_id, score of the first stage, reason: a row for each item of a list."""
    place = np.tile(np.arange(1, ranked.items.shape[1] + 1, dtype=np.int16), len(users))
    owner = np.repeat(users.astype(np.int32), ranked.items.shape[1])
    table = pl.DataFrame({USER_ID: owner, "place": place, ITEM_ID: ranked.items.flatten().astype(np.int32)})
    first = pl.DataFrame({USER_ID: owner, ITEM_ID: found.items.flatten(), "score": found.scores.flatten()})
    why = [
        (u, i, text) for u, reasons in zip(users.tolist(), ranked.reasons, strict=True) for i, text in reasons.items()
    ]
    said = pl.DataFrame(why, {USER_ID: pl.Int32, ITEM_ID: pl.Int32, "reason": pl.String}, orient="row")
    table = table.filter(pl.col(ITEM_ID) > 0)
    for other in (first.filter(pl.col(ITEM_ID) > 0), said):
        table = table.join(other, on=[USER_ID, ITEM_ID], how="left", maintain_order="left")
    return table
