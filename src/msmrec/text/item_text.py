"""From a catalogue to modality vectors, each step kept by the fingerprint of what it depends on.

    knowledge base + items ─retrieve─▶ documents ─describe─▶ texts ─encode─▶ whitened vectors

`retrieved/<dataset>-<fingerprint>/` in the cache holds `documents.parquet` (which document belongs to which item, with
its score), `texts/<dataset>-<fingerprint>/` the `texts-*.parquet` (item_id, modality, text, doc_ids, note); vectors of
texts are cached row by row.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from msmrec.artifacts import InputError, build_once, fingerprint
from msmrec.columns import DOC_ID, GENRES, ITEM_ID, MODALITY, NOTE, TEXT, TITLE
from msmrec.data.prepare import Dataset
from msmrec.data.root import find
from msmrec.text.describe import Generator, describe, gather
from msmrec.text.encoder import SentenceEncoder, TextEncoder
from msmrec.text.extractive import Extractive
from msmrec.text.knowledge import KnowledgeBase
from msmrec.text.modalities import Modality
from msmrec.text.noise import TextNoise
from msmrec.text.schemas import SCHEMAS, SchemaName
from msmrec.text.vector_cache import encode_cached

RETRIEVAL_FORMAT, FORMAT = 2, 3  # raise when retrieval, or description, gives something else for the same inputs


class ModalityVectors(NamedTuple):
    """What models read of the items' texts."""

    vectors: np.ndarray  # (N + 1, M, D) float32, zero where missing; row 0 is the padding
    present: np.ndarray  # (N + 1, M) bool, False where an item has no evidence for a modality


class ItemText:
    """How items get modality vectors: which knowledge, which schema, which generator, which encoder.

    Args:
        knowledge: JSON Lines files of documents. A relative path is looked for under the data root, then here.
        modalities: the schema: a list of modalities, or the name of one in text/schemas.py; by default the paper's
            nine for films.
        generator: writes the texts from what was retrieved; `Extractive` copies sentences and fields, `LLMWriter` asks
            a language model.
        encoder: frozen, makes a vector of each text.
        dim: vectors are centred and whitened by PCA to this width, modality by modality. Raw sentence vectors share a
            large common direction, which drowns what tells two films apart.
        dense_retrieval: let the encoder help to find documents where titles leave doubt.
        noise: spoils the texts of some items, to see what depends on them.
        metadata_only: with `knowledge` empty: describe items from their own columns, nothing is retrieved.
    """

    def __init__(
        self,
        knowledge: list[str],
        modalities: list[Modality] | SchemaName | None = None,
        generator: Generator | None = None,
        encoder: TextEncoder | None = None,
        dim: int = 64,
        dense_retrieval: bool = False,
        noise: TextNoise | None = None,
        metadata_only: bool | None = None,
    ) -> None:
        if bool(knowledge) == bool(metadata_only):
            raise InputError(
                "text.knowledge is empty: name JSON Lines files of documents, or set text.metadata_only"
                if not knowledge
                else "text.metadata_only is set, but text.knowledge names files: leave out one of them"
            )
        self.knowledge, self.dim = knowledge, dim
        self.modalities = list(SCHEMAS[modalities] if isinstance(modalities, str) else modalities or SCHEMAS["films"])
        self.generator: Generator = generator or Extractive()
        self.encoder = encoder or SentenceEncoder()
        self.dense_retrieval, self.noise = dense_retrieval, noise

    @property
    def names(self) -> list[str]:
        """The M modalities, in the order of the vectors."""
        return [modality.name for modality in self.modalities]

    def retrieved(self, dataset: Dataset, root: Path, cache: Path) -> tuple[KnowledgeBase, pl.DataFrame]:
        """The knowledge base, and which of its documents belong to which item (item_id, doc_id, score)."""
        files = [find(name, root) for name in self.knowledge]
        base = KnowledgeBase.read(files) if files else KnowledgeBase.none()
        encoder = self.encoder if self.dense_retrieval else None
        key = fingerprint(
            RETRIEVAL_FORMAT, dataset.info["fingerprint"], base.fingerprint, encoder and encoder.fingerprint
        )

        def build(folder: Path) -> None:
            base.retrieve(dataset.items, encoder=encoder).write_parquet(folder / "documents.parquet")

        folder = build_once(cache / "retrieved" / f"{dataset.info['name']}-{key}", build)
        return base, pl.read_parquet(folder / "documents.parquet")

    def documents(self, dataset: Dataset, root: Path, cache: Path) -> pl.DataFrame:
        """What was found for the items: item_id, doc_id, source, score and the documents' fields; a row a pair."""
        base, found = self.retrieved(dataset, root, cache)
        return found.join(base.documents.drop("source"), on=DOC_ID, how="left", maintain_order="left")

    def plan(self, dataset: Dataset, root: Path, cache: Path) -> str:
        """What describing would ask for and cost; asks nobody."""
        base, found = self.retrieved(dataset, root, cache)
        plan = self.generator.plan(gather(dataset.items, base, found), self.modalities, cache)
        return str(plan or f"{type(self.generator).__name__} asks nobody: it copies from what was retrieved")

    def texts(self, dataset: Dataset, root: Path, cache: Path, retry: bool = False) -> pl.DataFrame:
        """Modality texts of all items: item_id, modality, text, doc_ids, note; made once and kept.

        What a language model will be asked, and the cost, is printed before anything is sent. With `retry`, texts that
        stand in for those of a server that failed are asked for again.
        """
        base, found = self.retrieved(dataset, root, cache)
        key = fingerprint(
            FORMAT, dataset.info["fingerprint"], base.fingerprint, found.hash_rows().sum(), self.modalities,
            self.generator.fingerprint,
        )  # fmt: skip

        def build(folder: Path) -> None:
            if plan := self.generator.plan(gather(dataset.items, base, found), self.modalities, cache):
                print(plan, flush=True)
            blocks = describe(dataset.items, base, found, self.modalities, self.generator, cache)
            for number, block in enumerate(blocks):
                block.write_parquet(folder / f"texts-{number:05}.parquet")

        folder = cache / "texts" / f"{dataset.info['name']}-{key}"
        if retry and folder.is_dir():
            shutil.rmtree(folder)
        texts = pl.read_parquet(build_once(folder, build) / "texts-*.parquet")
        return texts if self.noise is None else self.noise(texts)

    def vectors(self, dataset: Dataset, root: Path, cache: Path) -> ModalityVectors:
        """Whitened vectors of all items and modalities."""
        texts = self.texts(dataset, root, cache)
        raw = encode_cached(self.encoder, texts[TEXT].to_list(), cache / "vectors")
        vectors = np.zeros((dataset.num_items + 1, len(self.names), self.dim), np.float32)
        present = np.zeros((dataset.num_items + 1, len(self.names)), bool)
        for k, name in enumerate(self.names):
            rows = texts.select(((pl.col(MODALITY) == name) & (pl.col(TEXT) != "")).arg_true())[:, 0].to_numpy()
            item = texts[ITEM_ID].to_numpy()[rows]
            vectors[item, k] = whiten(raw[rows], self.dim)
            present[item, k] = True
        return ModalityVectors(vectors, present)

    def title_and_description(self, dataset: Dataset, root: Path, cache: Path) -> np.ndarray:
        """(N + 1, 2, D) float32 vectors of each item's title and of its description (RALLRec, eq. 3), row 0 zero.

        The description is all that was found about the item, one modality after the other. Both are centred and
        turned to their `dim` principal axes, then brought to length 1; an item without a description has zeros there.
        """
        found = all_told(self.texts(dataset, root, cache))
        description = [""] * (dataset.num_items + 1)
        for item, text in found.iter_rows():
            description[item] = text
        title = [f"{name}. {', '.join(genres)}" for name, genres in dataset.items.select(TITLE, GENRES).iter_rows()]
        result = np.zeros((dataset.num_items + 1, 2, self.dim), np.float32)
        for k, side in enumerate((["", *title], description)):
            rows = np.array([i for i, text in enumerate(side) if text])
            if len(rows):
                raw = encode_cached(self.encoder, [side[i] for i in rows], cache / "vectors")
                result[rows, k] = principal(raw, self.dim)
        return result


def all_told(texts: pl.DataFrame) -> pl.DataFrame:
    """item_id, text: an item's texts, one modality after the other; items without any are left out."""
    told = texts.filter(pl.col(TEXT) != "")
    return told.group_by(ITEM_ID, maintain_order=True).agg(pl.col(TEXT).str.join(" "))


def how_described(texts: pl.DataFrame) -> pl.DataFrame:
    """How many items were described otherwise than asked, by what happened, most first: `what`, `items`."""
    odd = texts.filter(pl.col(NOTE) != "").select(ITEM_ID, what=pl.col(NOTE).str.split("; ")).explode("what")
    kinds = odd.with_columns(pl.col("what").str.replace(r"^(extractive: \w+: [^(:]*).*", "${1}").str.strip_chars())
    counted = kinds.unique().group_by("what").agg(items=pl.len())
    return counted.sort("items", "what", descending=[True, False])


def principal(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Centres and turns (n, D) to the `dim` axes of largest variance; rows of length 1 (zero rows stay)."""
    centred = vectors - vectors.mean(0, keepdims=True)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes[:dim].T
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)
    return np.pad(turned, ((0, 0), (0, dim - turned.shape[1]))).astype(np.float32)


def whiten(vectors: np.ndarray, dim: int, fit: np.ndarray | None = None) -> np.ndarray:
    """Centres, rotates to the principal axes, scales each kept axis to equal variance; rows have mean square norm 1.

    Args:
        vectors: (n, D). dim: axes to keep; axes without variance stay 0.
        fit: (n,) bool, the rows that centre, axes and scales are taken from; all by default.

    Returns:
        (n, dim) float32.
    """
    known = vectors if fit is None else vectors[fit]
    if len(known) < 2:
        return np.zeros((len(vectors), dim), np.float32)
    mean = known.mean(0, keepdims=True)
    _, scale, axes = np.linalg.svd(known - mean, full_matrices=False)
    kept = min(dim, int((scale > 1e-6 * max(float(scale.max(initial=0)), 1e-12)).sum()))
    white = ((vectors - mean) @ axes[:kept].T) / scale[:kept]
    white /= np.sqrt(((white if fit is None else white[fit]) ** 2).sum(1).mean())
    result = np.zeros((len(vectors), dim), np.float32)
    result[:, :kept] = white
    return result
