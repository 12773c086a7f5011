"""The projector that brings text vectors into the collaborative space (RALLRec, section 2.2.3)."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.artifacts import InputError
from msmrec.columns import COUNT, TRAIN, VAL
from msmrec.data.batches import EpochLoader, share_of, shuffled
from msmrec.data.datamodule import RecDataModule
from msmrec.item_vectors import run_vectors
from msmrec.models.base import Module, exact_products
from msmrec.text.item_text import ItemText

HELD_OUT = 0.1  # share of the items for validation, and again for test


class ItemBatch(NamedTuple):
    """Items that have both vectors."""

    item_id: Tensor  # (B,)

    @property
    def num_tokens(self) -> int:
        """Items."""
        return len(self.item_id)


class ItemLoader(EpochLoader):
    """Shuffled batches of items.

    Args:
        item_id: (n,) which items. batch_size: items a batch. device: where they lie. seed: with the epoch, the order.
        rank, world_size: this process and how many there are; each gets an equal part of the epoch's order.
        drop_last: leaves out what cannot be shared equally, so that no process waits for a batch of another's.
    """

    def __init__(
        self, item_id: Tensor, batch_size: int, device: torch.device, seed: int, rank: int = 0, world_size: int = 1,
        drop_last: bool = True,
    ) -> None:  # fmt: skip
        self.item_id, self.batch_size, self.seed = item_id.to(device), batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.share = share_of(len(item_id), rank, world_size, equal=drop_last)

    def __len__(self) -> int:
        return -(-self.share // self.batch_size)

    def __iter__(self) -> Iterator[ItemBatch]:
        order = shuffled(len(self.item_id), self.seed, self.epoch, self.item_id.device)
        for rows in torch.split(order[self.rank :: self.world_size][: self.share], self.batch_size):
            yield ItemBatch(self.item_id[rows])


class Aligner(nn.Module):
    """Maps an item's text vectors into the collaborative space.

    Args:
        parts, width: P text vectors of width D an item (title, description).
        hidden: width of the hidden layer.
        out: width of the collaborative space.
        kind: mlp, the paper's two layers over the parts side by side; or attention, where a learned query weighs the
            parts of each item before the same two layers (the alternative that the paper leaves open).
        dropout: on the hidden layer.
    """

    def __init__(
        self, parts: int, width: int, hidden: int, out: int, kind: Literal["mlp", "attention"], dropout: float
    ) -> None:
        super().__init__()
        self.attention: nn.MultiheadAttention | None = None
        if kind == "attention":
            self.attention = nn.MultiheadAttention(width, 1, batch_first=True)
            self.part = nn.Parameter(torch.randn(parts, width) * 0.02)  # which part a vector is
            self.query = nn.Parameter(torch.randn(parts, width) * width**-0.5)
        self.mlp = nn.Sequential(
            nn.Linear(parts * width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, out)
        )

    def forward(self, text: Tensor) -> Tensor:
        """(n, P, D) to (n, out)."""
        if self.attention is not None:
            tokens = text + self.part
            query = self.query.expand(len(text), -1, -1)
            text = text + self.attention(query, tokens, text, need_weights=False)[0]
        mapped: Tensor = self.mlp(text.flatten(1))
        return mapped


def info_nce(text: Tensor, collaborative: Tensor, item: Tensor, temperature: float, all_items: bool) -> Tensor:
    """Symmetric InfoNCE over cosines (eq. 5): the item's own vector of the other kind against those of other items.

    Args:
        text, collaborative: (n, D) mapped text vectors and collaborative vectors of the candidates.
        item: (B,) places of the batch's items among them.
        temperature: divides the cosines; the paper's formula has 1.
        all_items: candidates are all n, or only the batch itself.
    """
    left, right = F.normalize(text, dim=-1), F.normalize(collaborative, dim=-1)
    if not all_items:
        left, right, item = left[item], right[item], torch.arange(len(item), device=item.device)
    forward = F.cross_entropy(left[item] @ right.T / temperature, item)
    return forward + F.cross_entropy(right[item] @ left.T / temperature, item)


class Alignment(nn.Module):
    """Text and collaborative vectors of all items, the map from the former to the latter, and the loss that trains it.

    Trained by itself (Projector), or inside a click run, beside its loss (LlamaCTR's `joint`).

    Args:
        text: where texts come from.
        collaborative: name of the upstream run whose item vectors are the aim, under `needs:`.
        collaborative_dim: their width.
        aligner: mlp or attention.
        hidden_dim: of the aligner.
        dropout: of the aligner.
        temperature: of InfoNCE.
        all_negatives: negatives are all items, or those of the batch.
    """

    text_vectors: Tensor  # (N + 1, 2, width of a text vector)
    collaborative_vectors: Tensor  # (N + 1, D)
    both: Tensor  # (n,) items that have both, ascending

    def __init__(
        self,
        text: ItemText,
        collaborative: str = "lightgcn_ml1m_clicks",
        collaborative_dim: int = 64,
        aligner: Literal["mlp", "attention"] = "mlp",
        hidden_dim: int = 256,
        dropout: float = 0.0,
        temperature: float = 0.1,
        all_negatives: bool = True,
    ) -> None:
        super().__init__()
        self.text, self.collaborative, self.collaborative_dim = text, collaborative, collaborative_dim
        self.temperature, self.all_negatives = temperature, all_negatives
        self.aligner = Aligner(2, text.dim, hidden_dim, collaborative_dim, aligner, dropout)

    def reserve(self, num_items: int) -> None:
        """Makes room for the vectors of a checkpoint."""
        self.register_buffer("text_vectors", torch.zeros(num_items + 1, 2, self.text.dim))
        self.register_buffer("collaborative_vectors", torch.zeros(num_items + 1, self.collaborative_dim))

    def read(self, data: RecDataModule) -> None:
        """Fetches both kinds of vectors; an item that the upstream run did not train on has no collaborative one.

        Raises:
            InputError: the collaborative vectors are of another width, or there is nothing to align.
        """
        wanted = run_vectors(data.run(self.collaborative), data.num_items)
        if wanted.shape[1] != self.collaborative_dim:
            raise InputError(
                f"collaborative_dim is {self.collaborative_dim}, but the vectors of {self.collaborative} have width"
                f" {wanted.shape[1]}"
            )
        text = self.text.title_and_description(data.dataset, data.root, data.cache)
        self.register_buffer("text_vectors", torch.from_numpy(text))
        self.register_buffer("collaborative_vectors", torch.from_numpy(wanted))
        warm = np.append(False, data.dataset.items[COUNT].to_numpy() > 0)
        both = torch.from_numpy(np.flatnonzero(warm & wanted.any(1) & text.any((1, 2))))
        if len(both) < 2:
            raise InputError("fewer than two items have both a text and a collaborative vector; nothing to align")
        self.register_buffer("both", both, persistent=False)

    def forward(self, item: Tensor | None = None) -> Tensor:
        """(n, D) aligned vectors of items, by default of all N + 1 (eq. 6); zero for those without text."""
        text = self.text_vectors if item is None else self.text_vectors[item]
        aligned: Tensor = self.aligner(text) * text.flatten(1).any(1)[:, None]
        return aligned

    def loss(self, aligned: Tensor, candidates: Tensor, item: Tensor) -> Tensor:
        """InfoNCE.

        Args:
            aligned: (n, D) aligned vectors of the candidates. candidates: (n,) items, ascending.
            item: (B,) the batch's items, all of them candidates.
        """
        place = torch.searchsorted(candidates, item)
        wanted = self.collaborative_vectors[candidates]
        return info_nce(aligned, wanted, place, self.temperature, self.all_negatives)


def alignment_metrics(text: Tensor, collaborative: Tensor, item: Tensor) -> dict[str, float]:
    """How well the spaces agree, for some items among all.

    Args:
        text, collaborative: (n, D) vectors of the candidates. item: (B,) which of them are asked.

    Returns:
        recall@1, recall@10: the item's own collaborative vector is among the nearest to its text vector;
        alignment: mean squared distance of the two (0 to 4, lower is better); uniformity: log of the mean of
        exp(-2 d^2) over pairs of text vectors (lower is more spread; Wang and Isola 2020).
    """
    left, right = F.normalize(text[item], dim=-1), F.normalize(collaborative, dim=-1)
    cosine = left @ right.T
    rank = (~(cosine < cosine.gather(1, item[:, None]))).sum(1) - 1  # equally near ones, and NaN, stand before it
    own = right[item]
    return {
        "recall@1": float((rank < 1).float().mean()),
        "recall@10": float((rank < 10).float().mean()),
        "alignment": float((left - own).square().sum(1).mean()),
        "uniformity": float(torch.pdist(left.float()).square().mul(-2).exp().mean().clamp(min=1e-12).log()),
    }


class Projector(Module):
    """Trains an alignment on the items that have both a text and a collaborative vector.

    A tenth of these items is held out for validation and another for test, to see whether the map holds for items it
    was not trained on. `before/` are the same metrics of the untrained map.

    Args:
        num_items: N, linked from the data.
        alignment: the vectors, the map and its loss.
        batch_size: items in a step.
        **optimisation: see Module.
    """

    monitor = "val/recall@10"
    headline = ("recall@1", "recall@10", "alignment", "uniformity")
    part: Tensor

    def __init__(self, num_items: int, alignment: Alignment, batch_size: int = 512, **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.alignment, self.text, self.batch_size = alignment, alignment.text, batch_size
        alignment.reserve(num_items)
        self.register_buffer("part", torch.full((num_items + 1,), -1))  # TRAIN, VAL or TEST; -1: lacks a vector
        self.before: dict[str, float] = {}

    def setup(self, stage: str) -> None:
        """Before training, fetches both kinds of vectors; evaluation finds them in the checkpoint."""
        if stage != "fit":
            return
        self.alignment.read(self.data)
        draw = torch.from_numpy(np.random.default_rng(0).random(len(self.part)))
        both = self.alignment.both
        self.part[both] = ((draw < 2 * HELD_OUT).long() + (draw < HELD_OUT).long())[both]
        if len(self._items(TRAIN)) < 2:
            raise InputError("fewer than two items with both vectors are left to train on; nothing to align")
        if len(self._items(VAL)) < self.trainer.world_size:
            raise InputError(f"{len(self._items(VAL))} items are held out, fewer than processes: train it in one")

    def _items(self, part: int) -> Tensor:
        return (self.part == part).nonzero()[:, 0]

    def train_loader(self, data: RecDataModule) -> ItemLoader:
        """Items with both vectors, less the held-out ones."""
        device, rank, world_size = data.place()
        return ItemLoader(self._items(TRAIN), self.batch_size, device, data.seed, rank, world_size)

    def eval_loader(self, data: RecDataModule, split: int) -> ItemLoader:
        """The held-out items, in one batch a process."""
        items, (device, rank, world_size) = self._items(split), data.place()
        return ItemLoader(items, max(len(items), 1), device, data.seed, rank, world_size, drop_last=False)

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """Held-out items."""
        return {"held_out_items": HELD_OUT, "candidates": "all items with both vectors", "before": self.before}

    def item_embeddings(self) -> Tensor:
        """(N + 1, D) aligned vectors; zero for items without text."""
        aligned: Tensor = self.alignment()
        return aligned

    def vectors_to_export(self) -> dict[str, Tensor]:
        """Aligned vectors."""
        return {"item_embeddings": self.item_embeddings()}

    def training_step(self, batch: ItemBatch, batch_idx: int) -> Tensor:
        """InfoNCE of the batch's items; held-out items are no candidates."""
        candidates = self._items(TRAIN)
        loss = self.alignment.loss(self.alignment(candidates), candidates, batch.item_id)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.item_id))
        return loss

    def _measure(self, item: Tensor) -> dict[str, float]:
        candidates = (self.part >= TRAIN).nonzero()[:, 0]
        with torch.autocast(self.device.type, enabled=False):
            mapped = self.alignment(candidates)
        wanted = self.alignment.collaborative_vectors[candidates]
        return alignment_metrics(mapped, wanted, torch.searchsorted(candidates, item))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps how good the untrained map was."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["before"] = self.before

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run cannot measure it again."""
        super().on_load_checkpoint(checkpoint)
        self.before = checkpoint.get("before", {})

    def on_fit_start(self) -> None:
        """Measures the untrained map."""
        if self.before:
            return
        self.eval()
        with torch.no_grad(), exact_products():
            self.before = self._measure(self._items(VAL))
        self.train()
        for logger in self.trainer.loggers:
            logger.log_metrics({f"before/{name}": value for name, value in self.before.items()}, 0)

    def evaluate(self, batch: ItemBatch) -> tuple[Tensor, ...]:
        """(B,) held-out items."""
        return (batch.item_id,)

    def finish(self, prefix: str, columns: list[Tensor]) -> dict[str, float]:
        """Metrics over the held-out items."""
        return self._measure(columns[0])
