import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
from jsonargparse import ArgumentParser

from msmrec.artifacts import InputError
from msmrec.columns import VAL
from msmrec.data.prepare import Dataset
from msmrec.data.samples import sample_rows
from msmrec.retrieval.callback import RetrievalCallback
from msmrec.retrieval.index import ItemIndex, Kind, Metric

KINDS: tuple[Kind, ...] = ("flat", "ivf", "hnsw", "pq")
K = 10


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray]:
    """5,000 items in 100 clusters, row 0 the padding; 50 queries drawn like them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((100, 32))
    rows = centres[rng.integers(0, 100, 5_051)] + 0.7 * rng.standard_normal((5_051, 32))
    return rows[:5_001].astype(np.float32), rows[5_001:].astype(np.float32)


@pytest.fixture(scope="module")
def built(world: tuple[np.ndarray, np.ndarray]) -> dict[str, ItemIndex]:
    return {kind: ItemIndex(kind, device="cpu").build(world[0], "abc") for kind in KINDS}


def brute_force(vectors: np.ndarray, queries: np.ndarray, metric: Metric) -> np.ndarray:
    """(B, N + 1) scores, the padding -inf."""
    vectors, queries = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores = queries @ vectors.T
    scores[:, 0] = -np.inf
    return scores


def recall(found: np.ndarray, scores: np.ndarray) -> float:
    best = np.argsort(-scores, axis=1)[:, : found.shape[1]]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(found, best, strict=True)]))


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_flat_is_brute_force(world: tuple[np.ndarray, np.ndarray], metric: Metric) -> None:
    vectors, queries = world
    scores, found = ItemIndex("flat", metric).build(vectors).search(queries, K)
    truth = brute_force(vectors, queries, metric)
    assert found.dtype == np.int64 and scores.dtype == np.float32 and found.shape == scores.shape == (50, K)
    # equal scores, so that ties may come in any order
    np.testing.assert_allclose(np.take_along_axis(truth, found, 1), -np.sort(-truth, 1)[:, :K], atol=1e-5)
    np.testing.assert_allclose(scores, np.take_along_axis(truth, found, 1), rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == K for row in found)


@pytest.mark.parametrize(("kind", "least"), [("ivf", 0.95), ("hnsw", 0.98), ("pq", 0.6)])
@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_approximate_kinds_find_most(
    world: tuple[np.ndarray, np.ndarray], kind: Kind, metric: Metric, least: float
) -> None:
    vectors, queries = world
    scores, found = ItemIndex(kind, metric).build(vectors).search(queries, K)
    assert recall(found, brute_force(vectors, queries, metric)) >= least
    assert (np.diff(scores, axis=1) <= 0).all() and (found > 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.002, 0.05, 0.2, 0.5])
def test_within(world: tuple[np.ndarray, np.ndarray], built: dict[str, ItemIndex], kind: Kind, share: float) -> None:
    vectors, queries = world
    within = 1 + np.flatnonzero(np.random.default_rng(1).random(5_000) < share)
    truth = brute_force(vectors, queries, "cosine")
    truth[:, ~np.isin(np.arange(5_001), within)] = -np.inf
    _, found = built[kind].search(queries, K, within=[0, *within, 99_999])  # the padding and unknown items: no harm
    size = min(K, len(within))
    assert np.isin(found[:, :size], within).all() and (found[:, size:] == -1).all()
    least = 0.5 if kind == "pq" else 0.9 if share > 0.1 else 1
    assert recall(found[:, :size], truth) >= least


@pytest.mark.parametrize("kind", KINDS)
def test_exclude(world: tuple[np.ndarray, np.ndarray], built: dict[str, ItemIndex], kind: Kind) -> None:
    vectors, queries = world
    truth = brute_force(vectors, queries, "cosine")
    exclude = np.unique(np.argsort(-truth, axis=1)[:, :5])
    truth[:, exclude] = -np.inf
    _, found = built[kind].search(queries, K, exclude=exclude)
    assert not np.isin(found, exclude).any() and (found > 0).all()
    assert recall(found, truth) >= (0.6 if kind == "pq" else 0.95)
    _, both = built[kind].search(queries, K, within=[1, 2, 3], exclude=[2])
    assert (np.sort(both, axis=1)[:, -2:] == [1, 3]).all() and (both[:, 2:] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_search_alike(
    world: tuple[np.ndarray, np.ndarray], built: dict[str, ItemIndex], kind: Kind, tmp_path: Path
) -> None:
    built[kind].save(tmp_path)
    built[kind].save(tmp_path)  # again: replaces, leaves nothing behind
    assert len(list(tmp_path.iterdir())) == 2
    loaded = ItemIndex.load(tmp_path, catalogue="abc")
    for options in ({}, {"within": [5, 6, 7]}, {"exclude": np.arange(1, 500)}):
        before, after = (index.search(world[1], K, **options) for index in (built[kind], loaded))
        np.testing.assert_array_equal(before[0], after[0])
        np.testing.assert_array_equal(before[1], after[1])
    loaded.add([7_000], world[1][:1])
    assert len(loaded) == 5_001 and loaded.search(world[1][:1], 1)[1][0, 0] == 7_000
    info = json.loads((tmp_path / "index.json").read_text())
    assert {key: info[key] for key in ("kind", "metric", "dimension", "count", "catalogue")} == {
        "kind": kind,
        "metric": "cosine",
        "dimension": 32,
        "count": 5_000,
        "catalogue": "abc",
    }
    plain = faiss.read_index(str(tmp_path / info["file"]))  # any FAISS program reads it, with item ids
    assert plain.search(world[0][9:10], 1)[1][0, 0] == 9


def test_killed_save_leaves_the_old_index(built: dict[str, ItemIndex], tmp_path: Path, monkeypatch: Any) -> None:
    built["flat"].save(tmp_path)
    monkeypatch.setattr("msmrec.retrieval.index.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        built["hnsw"].save(tmp_path)
    assert ItemIndex.load(tmp_path).kind == "flat"


@pytest.mark.parametrize("kind", KINDS)
def test_add(world: tuple[np.ndarray, np.ndarray], kind: Kind) -> None:
    vectors, queries = world
    index = ItemIndex(kind).build(vectors[:4_001], "old")
    order = np.random.default_rng(2).permutation(np.arange(4_001, 5_001))
    index.add(order, vectors[order], catalogue="new")
    assert len(index) == 5_000 and index.catalogue == "new"
    _, found = index.search(queries, K)
    assert recall(found, brute_force(vectors, queries, "cosine")) >= (0.6 if kind == "pq" else 0.95)
    assert (found > 4_000).any()
    assert (index.search(vectors[4_500:4_501], 1, within=np.arange(4_400, 5_001))[1] == 4_500).all()


def test_items_without_vector(world: tuple[np.ndarray, np.ndarray]) -> None:
    vectors = world[0][:101].copy()
    vectors[0] = np.nan  # the padding row is not even looked at
    vectors[[3, 50]] = 0
    index = ItemIndex().build(vectors)
    assert len(index) == 98 and index.without_vector == 2
    scores, found = index.search(vectors[7:9], 100)  # more than there are
    assert sorted(found[0])[:2] == [-1, -1] and set(found[0]) == {-1, *range(1, 101)} - {3, 50}
    assert found[0, 0] == 7 and found[1, 0] == 8 and (scores[found == -1] == -np.inf).all()
    assert (index.search(vectors[7:8], 2, within=[3, 50])[1] == -1).all()
    assert (index.search(vectors[7:8], 2, within=[])[1] == -1).all()
    index.add([200, 300], np.stack([np.zeros(32), vectors[1]]))
    assert len(index) == 99 and index.without_vector == 3
    _, found = index.search(np.stack([np.zeros(32), vectors[1]]), 2)  # a zero query has no direction
    assert found[0].tolist() == [-1, -1] and set(found[1]) == {1, 300}
    assert len(ItemIndex(metric="inner_product").build(np.nan_to_num(vectors))) == 100
    assert index.search(np.zeros((0, 32)), 3)[1].shape == (0, 3)


def test_vectors_of_any_size_keep_their_direction() -> None:
    vectors = np.array([[0, 0], [1e30, 0], [0, 1e-30], [-1e-38, 0]])
    scores, found = ItemIndex().build(vectors).search(np.array([[1e-30, 0], [0, 1e30]]), 3)
    assert found[0].tolist() == [1, 2, 3] and found[1, 0] == 2
    np.testing.assert_allclose(scores[0], [1, 0, -1], atol=1e-6)


def refuses(message: str) -> Any:
    return pytest.raises(InputError, match=rf"^[^\n]*{re.escape(message)}[^\n]*$")


def test_bad_vectors(world: tuple[np.ndarray, np.ndarray]) -> None:
    vectors = world[0][:101]
    for bad in (np.nan, np.inf, 1e300):
        broken = vectors.astype(np.float64)
        broken[[7, 9], 3] = bad
        with refuses("item 7 holds NaN or infinity (2 such)"):
            ItemIndex().build(broken)
    for shape in ((101,), (101, 0), (5, 4, 3)):
        with refuses("give a matrix of numbers"):
            ItemIndex().build(np.ones(shape))
    with refuses("give a matrix of numbers"):
        ItemIndex().build(np.full((4, 4), "a"))  # type: ignore[arg-type]
    for nothing in (np.ones((0, 4)), np.ones((1, 4)), np.zeros((9, 4))):
        with refuses("nothing to index"):
            ItemIndex().build(nothing)
    with refuses("nlist is 200, but only 100 items"):
        ItemIndex("ivf", nlist=200).build(vectors)
    with refuses("needs 256 items or more, and 100"):
        ItemIndex("pq").build(vectors)
    with refuses("pq_bytes is 5, which does not divide the dimension 32"):
        ItemIndex("pq", pq_bytes=5).build(world[0])
    index = ItemIndex().build(vectors)
    with refuses("nothing to index"):
        index.build(np.zeros((9, 4)))
    assert len(index) == 100 and index.dim == 32  # what was there is still there


def test_bad_searches(world: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, queries = world
    index = ItemIndex()
    for call in (
        lambda: index.search(queries, 3),
        lambda: index.save(Path("nowhere")),
        lambda: index.add([1], queries[:1]),
    ):
        with refuses("the index is empty: call build or load first"):
            call()
    index.build(vectors)
    with refuses("queries has dimension 31, the index has 32"):
        index.search(queries[:, :31], 3)
    with refuses("give a matrix of numbers"):
        index.search(queries[0], 3)
    with refuses("query 1 holds NaN or infinity"):
        index.search(np.stack([queries[0], np.full(32, np.nan)]), 3)
    with refuses("k is 0: give at least 1"):
        index.search(queries, 0)
    with refuses("within holds float64: give item ids"):
        index.search(queries, 3, within=np.array([1.5]))


def test_bad_additions(world: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, queries = world
    index = ItemIndex().build(vectors[:11])
    for ids, rows, message in (
        ([11, 12], queries[:1], "2 item ids for 1 vectors"),
        ([0], queries[:1], "item id 0 cannot be indexed: ids begin at 1"),
        ([11, 11], queries[:2], "holds an id twice"),
        ([11, 10], queries[:2], "item 10 is indexed already (1 such)"),
        ([11], queries[:1, :5], "vectors has dimension 5, the index has 32"),
        ([11, 12], np.full((2, 32), np.nan), "item 11 holds NaN or infinity (2 such)"),
        (["a"], queries[:1], "item_ids holds <U1"),
    ):
        with refuses(message):
            index.add(ids, rows)  # type: ignore[arg-type]
        assert len(index) == 10
    index.add([], queries[:0])
    assert len(index) == 10


def test_bad_settings() -> None:
    with refuses("nlist is 0: give at least 1"):
        ItemIndex("ivf", nlist=0)
    with refuses("runs on the CPU only"):
        ItemIndex("hnsw", device="gpu")


def test_bad_folders(built: dict[str, ItemIndex], tmp_path: Path) -> None:
    with refuses("no readable index"):
        ItemIndex.load(tmp_path)
    built["flat"].save(tmp_path)
    with refuses("index of catalogue abc, not abd; build it again"):
        ItemIndex.load(tmp_path, catalogue="abd")
    path = tmp_path / "index.json"
    info = json.loads(path.read_text())
    for change, message in (
        ({"format": 0}, "index of format 0"),
        ({"count": 4}, "do not belong together"),
        ({"settings": {"speed": 1}}, "no readable index"),
        ({"file": "gone.faiss"}, "no readable index"),
        ({"file": 3}, "no readable index"),
    ):
        path.write_text(json.dumps(info | change))
        with refuses(message):
            ItemIndex.load(tmp_path)
    path.write_text("[1]")
    with refuses("no readable index"):
        ItemIndex.load(tmp_path)
    path.write_text(json.dumps(info))
    (tmp_path / info["file"]).write_bytes(b"IxMp but not really")
    with refuses("no readable index"):
        ItemIndex.load(tmp_path)
    faiss.write_index(faiss.IndexFlatIP(32), str(tmp_path / info["file"]))
    with refuses("do not belong together"):
        ItemIndex.load(tmp_path)


def test_missing_faiss_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with refuses('pip install -e ".[faiss]"'):
        ItemIndex().build(np.ones((3, 2)))


def test_gpu_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    if faiss.get_num_gpus():
        pytest.skip("there is one")
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with refuses("faiss is a CPU build"):
        ItemIndex(device="gpu")
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    with refuses("FAISS sees no GPU"):
        ItemIndex(device="gpu")


@pytest.mark.parametrize("kind", ["flat", "ivf", "pq"])
def test_gpu_copy_is_searched_and_kept_up_to_date(
    world: tuple[np.ndarray, np.ndarray], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paths around the GPU, with a CPU copy that, like FAISS's GPU indexes, knows no filters."""
    vectors, queries = world
    calls: list[int] = []

    def to_gpu(_: Any, __: int, index: Any) -> Any:
        copy = faiss.clone_index(index)
        return SimpleNamespace(add=copy.add, search=lambda rows, k: (calls.append(k), copy.search(rows, k))[1])

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    index, plain = (ItemIndex(kind, device=device).build(vectors[:4_001]) for device in ("gpu", "cpu"))
    for each in (index, plain):
        each.add(np.arange(4_001, 5_001), vectors[4_001:])
    np.testing.assert_array_equal(index.search(queries, K)[1], plain.search(queries, K)[1])
    assert calls == [K]
    np.testing.assert_array_equal(index.search(queries, K, exclude=[4])[1], plain.search(queries, K, exclude=[4])[1])
    index.search(queries[:2], 3_000)
    assert calls == [K]  # filters and long results: the CPU

    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory\nat some line")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", fails)
    with refuses("cannot be moved to the GPU (out of memory)"):
        index.build(vectors)


def test_is_a_config() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ItemIndex, "index")
    args = {"index": {"class_path": "msmrec.retrieval.index.ItemIndex", "init_args": {"kind": "hnsw", "hnsw_m": 8}}}
    made = parser.instantiate(parser.parse_object(args))
    assert made.index.kind == "hnsw" and made.index.hnsw_m == 8


@pytest.mark.parametrize("order", ["faiss, torch", "torch, faiss"])
def test_faiss_and_torch_in_one_process(order: str) -> None:
    """Each brings an OpenMP runtime; both must work, in parallel regions too, whichever comes first."""
    code = f"""
import {order}
import numpy as np
from msmrec.retrieval.index import ItemIndex
torch.set_num_threads(2)
faiss.omp_set_num_threads(2)
vectors = np.random.default_rng(0).standard_normal((1000, 16), np.float32)
for _ in range(2):
    assert torch.ones(600, 600).matmul(torch.ones(600, 600)).sum() == 600**3
    assert (ItemIndex("hnsw").build(vectors).search(vectors[1:100], 1)[1][:, 0] == np.arange(1, 100)).mean() > 0.95
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_where_the_index_finds_nothing_nothing_is_hit(tiny_clicks: Dataset) -> None:
    vectors = np.zeros((tiny_clicks.num_items + 1, 4), np.float32)
    vectors[1] = 1  # and no other item is near it, or near anything
    rows = sample_rows(tiny_clicks, VAL)
    rows = rows[tiny_clicks.item_id[rows] != 1]
    model = SimpleNamespace(retriever=SimpleNamespace(spaces=[vectors], k=5))
    data: Any = SimpleNamespace(dataset=tiny_clicks)
    assert RetrievalCallback(index=ItemIndex())._hit(model, data, rows) == 0


def test_a_hit_is_among_the_k_nearest_others(tiny_clicks: Dataset) -> None:
    rng, rows, k = np.random.default_rng(0), sample_rows(tiny_clicks, VAL)[:50], 3
    vectors = rng.standard_normal((tiny_clicks.num_items + 1, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = SimpleNamespace(retriever=SimpleNamespace(spaces=[vectors], k=k))
    data: Any = SimpleNamespace(dataset=tiny_clicks)
    hits = []
    for row in rows:
        target, start = tiny_clicks.item_id[row], tiny_clicks.offsets[tiny_clicks.user_id[row]]
        nearest = [i for i in np.argsort(-(vectors @ vectors[target])) if i not in (0, target)][:k]
        hits.append(bool(set(nearest) & set(tiny_clicks.item_id[start:row].tolist())))
    assert 0 < np.mean(hits) < 1
    assert RetrievalCallback(index=ItemIndex())._hit(model, data, rows) == pytest.approx(np.mean(hits))
