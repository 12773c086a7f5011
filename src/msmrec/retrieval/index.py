"""Item vectors in FAISS: which items are nearest to these vectors?

    index = ItemIndex(kind="hnsw").build(vectors, catalogue=dataset.info["fingerprint"])
    scores, item_ids = index.search(user_vectors, k=30, exclude=seen)

FAISS numbers what it stores 0, 1, 2, ...: a position. Items without a vector have none, so positions are not item
ids; the file on disk is a plain ``faiss.IndexIDMap``, which any FAISS program searches for item ids.

FAISS and torch each bring an OpenMP runtime of their own. With the Linux wheels both may be imported in either order:
neither crashes nor slows the other. They do not share a thread count: `torch.set_num_threads` leaves FAISS on all
cores, while `OMP_NUM_THREADS` in the environment reaches both (`faiss.omp_set_num_threads` only FAISS). A forked
process must give FAISS one thread before it searches.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msmrec.artifacts import InputError, atomic_file, first_line, write_json

log = logging.getLogger(__name__)

FORMAT = 1  # raise when the saved files' content changes
POINTS_PER_LIST = 39  # with fewer vectors a list, k-means learns noise (FAISS's own bound)
MAX_GPU_K = 2048  # FAISS's GPU kernels select no more
SETTINGS = ("nlist", "nprobe", "hnsw_m", "ef_construction", "ef_search", "pq_bytes")
EXACT_SHARE = 0.1  # a filter that leaves at most this share of the items is answered by an exact scan of those

Kind = Literal["flat", "ivf", "hnsw", "pq"]
Metric = Literal["cosine", "inner_product"]
Device = Literal["cpu", "gpu"]
ItemIds = Sequence[int] | NDArray[np.integer[Any]]


class ItemIndex:
    """Nearest items by cosine or inner product; higher scores are nearer.

    Which kind: flat is exact, and on one core answers 300 queries a second over 1,000,000 items of 128 numbers. ivf is
    some three times as fast there and misses a few; hnsw is ten times as fast and misses hardly any, with the slowest
    build, nine minutes there, and the most memory; pq is ivf with compressed vectors: a tenth of the memory, and it
    misses a fifth or more. How many ivf and pq miss hangs on how clustered the vectors are: measure yours.
    benchmarks/index.py makes these numbers.

    A search under `within` or `exclude` that leaves at most a tenth of the items scans exactly those; one that leaves
    more searches as usual, but wider by what was left out. FAISS's GPU indexes ignore filters, so the CPU's copy, which
    is always kept, answers those searches, and those of more than 2,048 results.

    Args:
        kind: how items are stored.
        metric: cosine normalises items and queries; an item whose vector is zero is then not indexed.
        nlist: ivf, pq: number of lists that items are clustered into; by default 4 √N, or N / 39 where that is less.
        nprobe: ivf, pq: lists that a search reads; more is exacter and slower; by default 2 √nlist, at least 8.
        hnsw_m: hnsw: links of a node (M); more is exacter and larger, 8 bytes a link and item.
        ef_construction: hnsw: candidates while building; more is exacter and slower to build.
        ef_search: hnsw: candidates while searching; more is exacter and slower.
        pq_bytes: pq: bytes a vector, a divisor of D; by default the largest one up to D / 4 and 64.
        device: where it is searched. Tens of thousands of items need no GPU, and a build of FAISS without kernels for
            the card ends the process, so a GPU is asked for by name; hnsw has none.

    Attributes:
        dim: D of the indexed vectors, 0 before `build`.
        catalogue: the string given to `build`: which items these are.
        without_vector: items that were given and not indexed, as their vector is zero.

    Raises:
        InputError: when a setting is out of range, or a GPU is asked for and cannot be used.
    """

    def __init__(
        self,
        kind: Kind = "flat",
        metric: Metric = "cosine",
        nlist: int | None = None,
        nprobe: int | None = None,
        hnsw_m: int = 16,
        ef_construction: int = 100,
        ef_search: int = 64,
        pq_bytes: int | None = None,
        device: Device = "cpu",
    ) -> None:
        for name, number in zip(SETTINGS, (nlist, nprobe, hnsw_m, ef_construction, ef_search, pq_bytes), strict=True):
            least = 2 if name == "hnsw_m" else 1
            if number is not None and number < least:
                raise InputError(f"{name} is {number}: give at least {least}")
        if kind == "hnsw" and device == "gpu":
            raise InputError("an hnsw index runs on the CPU only: give device cpu, or another kind")
        self.kind, self.metric, self.device = kind, metric, device
        self.nlist, self.nprobe, self.pq_bytes = nlist, nprobe, pq_bytes
        self.hnsw_m, self.ef_construction, self.ef_search = hnsw_m, ef_construction, ef_search
        self.dim, self.catalogue, self.without_vector = 0, "", 0
        self._map: Any = None  # faiss.IndexIDMap: positions to item ids, what is written to disk
        self._index: Any = None  # the index inside it, searched by position
        self._gpu: Any = None  # its copy on the GPU
        self._resources: Any = None  # that copy's memory: must outlive it
        self._item_ids = np.zeros(0, np.int64)  # (count,) item of each position
        self._positions = np.zeros(0, np.int64)  # (largest item id + 1,) position of each item, -1 where there is none
        if device == "gpu":
            self._refuse_no_gpu(_faiss())

    def __len__(self) -> int:
        """Number of indexed items."""
        return len(self._item_ids)

    def build(self, vectors: NDArray[np.floating[Any]], catalogue: str = "") -> ItemIndex:
        """Indexes the items anew, and returns itself.

        Args:
            vectors: (N + 1, D); row i is item i, row 0 is the padding and is not indexed.
            catalogue: fingerprint of what the rows are, which `load` can insist on.

        Raises:
            InputError: when a vector is not finite, no item has one, or there are too few items for the settings.
        """
        faiss = _faiss()
        given = _matrix(vectors, "vectors")[1:]
        rows, item_ids = self._normalised(given, np.arange(1, len(given) + 1), "item")
        without = len(given) - len(rows)
        if not len(rows):
            raise InputError(f"nothing to index: none of {len(given)} items has a vector")
        index = self._new(faiss, *rows.shape)
        index_map = faiss.IndexIDMap(index)
        index_map.train(rows)
        index_map.add_with_ids(rows, item_ids)
        if without:
            log.info("%d of %d items have no vector and are not indexed", without, len(given))
        self._take(faiss, index_map, index)
        self.catalogue, self.without_vector = catalogue, without
        return self

    def add(self, item_ids: ItemIds, vectors: NDArray[np.floating[Any]], catalogue: str | None = None) -> None:
        """Indexes new items; lists and codes stay as `build` learned them, so rebuild when many were added.

        Args:
            item_ids: (n,) ids that are not indexed yet.
            vectors: (n, D), a row for each id.
            catalogue: fingerprint of the catalogue with the new items; by default it stays as it is.

        Raises:
            InputError: when an id is below 1, repeated or indexed already, or a vector is wrong; nothing is added.
        """
        self._require()
        ids = _ids(item_ids, "item_ids")
        rows = _matrix(vectors, "vectors", self.dim)
        if len(ids) != len(rows):
            raise InputError(f"{len(ids)} item ids for {len(rows)} vectors: give one vector for each id")
        if len(ids) and ids.min() < 1:
            raise InputError(f"item id {ids.min()} cannot be indexed: ids begin at 1")
        if len(np.unique(ids)) < len(ids):
            raise InputError("item_ids holds an id twice: give each new item once")
        if len(known := np.intersect1d(ids, self._item_ids)):
            raise InputError(f"item {known[0]} is indexed already ({len(known)} such): add new items, or build again")
        rows, kept = self._normalised(rows, ids, "item")
        self.without_vector += len(ids) - len(kept)
        if catalogue is not None:
            self.catalogue = catalogue
        if len(kept):
            self._map.add_with_ids(rows, kept)
            if self._gpu is not None:
                self._gpu.add(rows)
            self._number(np.concatenate([self._item_ids, kept]))

    def search(
        self, queries: NDArray[np.floating[Any]], k: int, within: ItemIds | None = None, exclude: ItemIds | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest items of each query, best first.

        Args:
            queries: (B, D); a zero query has no direction and finds nothing under cosine.
            k: items a query; where fewer are found, the rest is -1 with score -inf.
            within: only these items; ids that are not indexed (0, the padding, among them) are passed over.
            exclude: not these items, even if `within` names them.

        Returns:
            scores (B, k) float32 and item_ids (B, k) int64.

        Raises:
            InputError: when the index is empty, or queries, k or ids are wrong.
        """
        faiss = _faiss()
        self._require()
        if k < 1:
            raise InputError(f"k is {k}: give at least 1")
        given = _matrix(queries, "queries", self.dim)
        rows, which = self._normalised(given, np.arange(len(given)), "query")
        scores = np.full((len(given), k), -np.inf, np.float32)
        found = np.full((len(given), k), -1, np.int64)
        allowed = self._allowed(within, exclude)
        num_allowed = len(self) if allowed is None else int(allowed.sum())
        width = min(k, num_allowed)
        if not width or not len(rows):
            return scores, found
        if allowed is None and self._gpu is not None and width <= MAX_GPU_K:
            near, at = self._gpu.search(rows, width)
        else:
            index, parameters = self._filtered(faiss, allowed, num_allowed)
            near, at = index.search(rows, width, params=parameters)
        found[which, :width] = np.where(at < 0, -1, self._item_ids[at])
        scores[which, :width] = np.where(at < 0, -np.inf, near)
        return scores, found

    def save(self, folder: Path) -> None:
        """Writes the index to `folder`: index.json, and the FAISS file that it names.

        The JSON file is replaced last, so a killed save leaves the index that was there before.
        """
        faiss = _faiss()
        self._require()
        name = f"index-{uuid.uuid4().hex[:8]}.faiss"
        with atomic_file(folder / name) as temporary:
            faiss.write_index(self._map, str(temporary))
        info = {
            "format": FORMAT, "file": name, "kind": self.kind, "metric": self.metric, "dimension": self.dim,
            "count": len(self), "without_vector": self.without_vector, "catalogue": self.catalogue,
            "settings": {setting: getattr(self, setting) for setting in SETTINGS},
        }  # fmt: skip
        write_json(folder / "index.json", info)
        for path in folder.glob("index-*.faiss"):
            if path.name != name:
                path.unlink(missing_ok=True)  # another process may have removed it

    @classmethod
    def load(cls, folder: Path, catalogue: str | None = None, device: Device = "cpu") -> ItemIndex:
        """The index that `save` wrote.

        Args:
            folder: what `save` was given.
            catalogue: refuse an index that was built with another one; by default any is taken.
            device: where to search it.

        Raises:
            InputError: when there is no readable index, or it is one of another catalogue.
        """
        faiss = _faiss()
        try:
            info = json.loads((folder / "index.json").read_text())
            if info["format"] != FORMAT:
                raise InputError(f"{folder}: index of format {info['format']}, not {FORMAT}; build it again")
            if catalogue is not None and info["catalogue"] != catalogue:
                raise InputError(f"{folder}: index of catalogue {info['catalogue']}, not {catalogue}; build it again")
            self = cls(info["kind"], info["metric"], device=device, **info["settings"])
            self.catalogue, self.without_vector = info["catalogue"], info["without_vector"]
            index_map = faiss.read_index(str(folder / Path(info["file"]).name))
            shape = index_map.ntotal, index_map.d
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{folder}: no readable index ({first_line(error)}); build it again") from None
        if not isinstance(index_map, faiss.IndexIDMap) or shape != (info["count"], info["dimension"]):
            raise InputError(f"{folder}: index.json and {info['file']} do not belong together; build the index again")
        self._take(faiss, index_map, faiss.downcast_index(index_map.index))
        return self

    def _new(self, faiss: Any, count: int, dim: int) -> Any:
        """An empty index of this kind, sized for `count` vectors of `dim` numbers."""
        if self.kind == "flat":
            return faiss.IndexFlatIP(dim)
        if self.kind == "hnsw":
            index = faiss.IndexHNSWFlat(dim, self.hnsw_m, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = self.ef_construction
            return index
        nlist = self.nlist or max(1, min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST))
        if nlist > count:
            raise InputError(f"nlist is {nlist}, but only {count} items have a vector: give fewer lists, or kind flat")
        quantizer = faiss.IndexFlatIP(dim)
        if self.kind == "ivf":
            index = faiss.IndexIVFFlat(quantizer, dim, nlist, faiss.METRIC_INNER_PRODUCT)
        else:
            size = self.pq_bytes or next(size for size in range(max(1, min(dim // 4, 64)), 0, -1) if dim % size == 0)
            if dim % size:
                raise InputError(f"pq_bytes is {size}, which does not divide the dimension {dim}")
            if count < 256:
                raise InputError(f"a pq index needs 256 items or more, and {count} have a vector: give kind flat")
            index = faiss.IndexIVFPQ(quantizer, dim, nlist, size, 8, faiss.METRIC_INNER_PRODUCT)
            index.pq.cp.niter = 10  # of 25: a third of the time for the same recall
            index.pq.cp.min_points_per_centroid = 1  # a small catalogue is learned by heart: no warning on stderr
        index.cp.min_points_per_centroid = 1  # the same for a given nlist; the default one has enough
        index.cp.max_points_per_centroid = 64  # a sample: a quarter of the time, and no worse lists
        index.nprobe = min(self.nprobe or max(8, round(2 * math.sqrt(nlist))), nlist)
        return index

    def _take(self, faiss: Any, index_map: Any, index: Any) -> None:
        """Makes a filled index the one that is searched, on the GPU too where it can be."""
        gpu = resources = None
        if self.device == "gpu":
            import torch

            self._refuse_no_gpu(faiss)
            card = torch.cuda.current_device() if torch.cuda.is_available() else 0  # each process has its own
            try:
                resources = faiss.StandardGpuResources()
                gpu = faiss.index_cpu_to_gpu(resources, card, index)
            except RuntimeError as error:  # memory, or a code size without a kernel
                raise InputError(
                    f"the {self.kind} index cannot be moved to the GPU ({first_line(error)}); give device cpu"
                ) from None
        self._map, self._index, self.dim = index_map, index, index.d
        self._gpu, self._resources = gpu, resources
        self._number(faiss.vector_to_array(index_map.id_map))

    @staticmethod
    def _refuse_no_gpu(faiss: Any) -> None:
        built = hasattr(faiss, "StandardGpuResources")
        if not built or not faiss.get_num_gpus():
            reason = "FAISS sees no GPU" if built else 'faiss is a CPU build, install extra "faiss-gpu" in its place'
            raise InputError(f"device gpu cannot be used ({reason}): give device cpu")

    def _number(self, item_ids: NDArray[np.int64]) -> None:
        """Takes the item of each position, (count,), and the way back."""
        self._item_ids = item_ids
        self._positions = np.full(int(item_ids.max()) + 1, -1, np.int64)
        self._positions[item_ids] = np.arange(len(item_ids))

    def _require(self) -> None:
        if self._index is None:
            raise InputError("the index is empty: call build or load first")

    def _normalised(
        self, rows: NDArray[np.float32], ids: NDArray[np.int64], what: str
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Under cosine the unit rows, without the zero ones, and the ids of those; else what was given.

        NaN and infinity are refused: `what` and the id of the first such row say where.
        """
        if len(bad := ids[~np.isfinite(rows).all(1)]):
            raise InputError(f"the vector of {what} {bad[0]} holds NaN or infinity ({len(bad)} such): mend its source")
        if self.metric == "inner_product":
            return rows, ids
        norm = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))  # float64: no overflow, nothing vanishes
        if not (kept := norm > 0).all():
            rows, norm, ids = rows[kept], norm[kept], ids[kept]
        return np.divide(rows, norm[:, None], out=np.empty_like(rows), casting="same_kind"), ids

    def _allowed(self, within: ItemIds | None, exclude: ItemIds | None) -> NDArray[np.bool_] | None:
        """(count,) by position: may the item be found? None when all may."""
        if within is None and exclude is None:
            return None
        allowed = np.full(len(self), within is None)
        for items, value in ((within, True), (exclude, False)):
            if items is not None:
                ids = _ids(items, "within" if value else "exclude")
                at = self._positions[ids[(ids > 0) & (ids < len(self._positions))]]
                allowed[at[at >= 0]] = value
        return None if allowed.all() else allowed

    def _filtered(self, faiss: Any, allowed: NDArray[np.bool_] | None, num_allowed: int) -> tuple[Any, Any]:
        """The FAISS index to ask, and the search parameters with the filter in them."""
        exact = num_allowed <= EXACT_SHARE * len(self)
        wider = len(self) / num_allowed
        index = self._index
        if allowed is not None and exact and self.kind in ("flat", "hnsw"):
            if self.kind == "hnsw":  # the vectors under the graph; a walk through it misses rare items
                index = faiss.downcast_index(index.storage)
            # costs what its items cost, whereas a bitmap costs a test for each item of the index
            return index, faiss.SearchParameters(sel=faiss.IDSelectorArray(np.flatnonzero(allowed)))
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self.kind == "flat":
            return index, faiss.SearchParameters(sel=selector)
        if self.kind == "hnsw":
            return index, faiss.SearchParametersHNSW(sel=selector, efSearch=math.ceil(self.ef_search * wider))
        nprobe = index.nlist if exact else min(index.nlist, math.ceil(index.nprobe * wider))
        return index, faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)


def _faiss() -> Any:
    """The module, imported where it is used: it is an extra, and has no complete type stubs."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise InputError(
            f'faiss cannot be imported ({error}): pip install -e ".[faiss]", or ".[faiss-gpu]" for CUDA 12, not both'
        ) from None


def _matrix(vectors: NDArray[np.floating[Any]], name: str, dim: int | None = None) -> NDArray[np.float32]:
    """(n, D) float32 in C order; refuses what is no matrix of numbers, or one of another dimension than `dim`."""
    array = np.asarray(vectors)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
        raise InputError(f"{name} has shape {array.shape} and type {array.dtype}: give a matrix of numbers")
    if dim is not None and array.shape[1] != dim:
        raise InputError(f"{name} has dimension {array.shape[1]}, the index has {dim}")
    with np.errstate(over="ignore"):  # too large for float32: becomes infinite, which is refused
        return np.ascontiguousarray(array, np.float32)


def _ids(item_ids: ItemIds, name: str) -> NDArray[np.int64]:
    """(n,) int64 of any sequence of ids."""
    array = np.asarray(item_ids).reshape(-1)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"{name} holds {array.dtype}: give item ids, which are whole numbers")
    return array.astype(np.int64)
