"""Fusion against sklearn and hand-worked cases; what it does where modalities, variance or items are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from msmrec.artifacts import InputError
from msmrec.fusion import Fusion, Kind
from msmrec.learned_fusion import FusionNetwork, info_nce, liked_pairs
from msmrec.linear_fusion import canonical_blocks, principal_axes
from msmrec.media.features import Features

KINDS: list[Kind] = ["concat", "pca", "cca", "average", "gated", "attention"]
NUM = 80


def world(seed: int = 0, widths: Sequence[int] = (6, 5), lacking: float = 0.0, shared: int = 2) -> list[Features]:
    """Modalities of NUM items with `shared` directions in common; row 0 is the padding."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((NUM + 1, shared))
    features = []
    for width in widths:
        vectors = 3 + latent @ rng.standard_normal((shared, width)) + 0.5 * rng.standard_normal((NUM + 1, width))
        present = rng.random(NUM + 1) >= lacking
        present[0] = False
        features.append(Features(np.where(present[:, None], vectors, 0).astype(np.float32), present))
    return features


def trained(first: int = 60) -> NDArray[np.bool_]:
    return np.arange(NUM + 1) <= first


def pairs_of(features: Sequence[Features], first: int = 60) -> NDArray[np.int64]:
    some = np.flatnonzero(np.any([f.present for f in features], 0) & trained(first))
    return np.random.default_rng(5).choice(some[some > 0], (200, 2))


def fitted(kind: Kind, features: list[Features], dim: int | None = 3, **options: Any) -> Fusion:
    dim = None if kind == "concat" else dim
    return Fusion(kind, dim, steps=5, **options).fit(features, trained(), pairs_of(features))


def z(rows: np.ndarray) -> np.ndarray:
    return (rows - rows.mean(0)) / rows.std(0)


def test_pca_is_sklearns() -> None:
    from sklearn.decomposition import PCA

    features = world()
    train = trained() & (np.arange(NUM + 1) > 0)
    side = np.concatenate([z(f.vectors[train].astype(np.float64)) / np.sqrt(f.vectors.shape[1]) for f in features], 1)
    reference = PCA(3, svd_solver="full").fit(side)
    ours = fitted("pca", features).transform(features).vectors[train]
    theirs = reference.transform(side)
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-5)
    np.testing.assert_allclose(ours.var(0), reference.explained_variance_ * 59 / 60, rtol=1e-4)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12)])
def test_principal_axes_are_those_of_the_rows(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).standard_normal(shape)
    rows -= rows.mean(0)
    axes, variances = principal_axes(rows, 5)
    _, scale, reference = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(variances, scale[:5] ** 2 / shape[0])
    np.testing.assert_allclose(np.abs(axes.T @ reference[:5].T), np.eye(5), atol=1e-8)
    assert (axes[np.abs(axes).argmax(0), range(5)] > 0).all()
    few, _ = principal_axes(rows[:, :1].repeat(3, 1), 3)
    assert few.shape == (3, 1)  # the rank


def test_cca_finds_sklearns_correlations() -> None:
    from sklearn.cross_decomposition import CCA

    features = world(3, shared=3)
    train = trained() & (np.arange(NUM + 1) > 0)
    x, y = (z(f.vectors[train].astype(np.float64)) for f in features)
    reference = [
        np.corrcoef(a, b)[0, 1]
        for a, b in zip(*map(np.transpose, CCA(3, max_iter=5000).fit_transform(x, y)), strict=True)
    ]
    a, b = canonical_blocks([x, y], 3, regularisation=1e-9)
    u, v = x @ a, y @ b
    np.testing.assert_allclose([np.corrcoef(u[:, k], v[:, k])[0, 1] for k in range(3)], reference, atol=1e-4)
    np.testing.assert_allclose(u.T @ u / 60, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(v.T @ v / 60, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(u.T @ v / 60, np.diag(np.diag(u.T @ v / 60)), atol=1e-6)
    # and the fused vector of an item with both sides is the mean of its two variates, whose signs agree
    ours = Fusion("cca", 3, regularisation=1e-9).fit(features, trained()).transform(features).vectors[train]
    np.testing.assert_allclose(ours, (u + v) / 2, atol=1e-4)
    assert (np.diag(u.T @ v) > 0).all()


def test_cca_by_hand() -> None:
    """One column each, correlation 0.6, r = 0.25: variates are columns over sqrt(1.25), whatever the correlation."""
    x = np.array([[1.0], [1], [-1], [-1], [1], [-1], [1], [-1], [1], [-1]])
    y = x.copy()
    y[[0, 2]] *= -1  # 8 of 10 agree
    a, b = canonical_blocks([x, y], 5, regularisation=0.25)
    np.testing.assert_allclose(a, [[1.25**-0.5]])
    np.testing.assert_allclose(b, [[1.25**-0.5]])
    _, c = canonical_blocks([x, -y], 5, regularisation=0.25)
    np.testing.assert_allclose(np.abs(c), [[1.25**-0.5]])


def test_maxvar_agrees_with_two_and_solves_its_equation() -> None:
    blocks = [z(f.vectors[1:].astype(np.float64)) for f in world(1, (6, 5, 4), shared=3)]
    axes = canonical_blocks(blocks, 3, regularisation=0.1)
    w, n = np.concatenate(axes), len(blocks[0])
    whole = np.concatenate(blocks, 1)
    covariance = whole.T @ whole / n + 0.1 * np.eye(15)
    own = np.zeros_like(covariance)
    for start, end in ((0, 6), (6, 11), (11, 15)):
        own[start:end, start:end] = covariance[start:end, start:end]
    from scipy.linalg import eigh

    values = eigh(covariance, own, eigvals_only=True)[::-1][:3]
    np.testing.assert_allclose(covariance @ w, own @ w * values, atol=1e-8)
    np.testing.assert_allclose(np.diag(w.T @ own @ w), 3)
    # a third modality of noise zeros leaves the solution of two: the general path equals the quick one
    pair = canonical_blocks(blocks[:2], 3, regularisation=0.1)
    triple = canonical_blocks([*blocks[:2], np.zeros((n, 2))], 3, regularisation=0.1)
    for quick, general in zip(pair, triple, strict=False):
        ratio = np.sqrt(3 / 2) * quick
        signs = np.sign((ratio * general).sum(0))
        np.testing.assert_allclose(general * signs, ratio, atol=1e-8)
    assert not triple[2].any()


def test_concat_is_features_side_by_side() -> None:
    features = world(lacking=0.3)
    fused = fitted("concat", features).transform(features)
    assert fused.vectors.shape == (NUM + 1, 11)
    expected = []
    for vectors, present in features:
        rows = vectors[present & trained()].astype(np.float64)
        unit = (vectors - rows.mean(0)) / rows.std(0)
        expected.append(unit / np.linalg.norm(unit, axis=1, keepdims=True) * present[:, None])
    np.testing.assert_allclose(fused.vectors, np.concatenate(expected, 1), atol=1e-5)


def test_average_by_hand() -> None:
    """A modality of one column and one of two equal columns: both are the standardised column, length 1 on average."""
    x = np.array([0, 1, 1, 3, 3], np.float32)[:, None]
    y = np.array([0, 5, 7, 5, 7], np.float32)[:, None]
    there = np.array([False, True, True, True, True])
    features = [Features(x, there), Features(np.hstack([y, y]), there)]
    fused = Fusion("average", 2).fit(features, there).transform(features).vectors
    expected = np.array([[0, 0], [-1, 0], [0, 0], [0, 0], [1, 0]], np.float32)  # ((-1 - 1) / 2, (-1 + 1) / 2, ...)
    np.testing.assert_allclose(fused, expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_items_that_lack_modalities(kind: Kind) -> None:
    features = world(lacking=0.4)
    lacking_both = ~features[0].present & ~features[1].present
    only_first = features[0].present & ~features[1].present
    assert lacking_both[1:].any() and only_first.any()
    fusion = fitted(kind, features)
    fused = fusion.transform(features)
    assert np.isfinite(fused.vectors).all() and fused.vectors.dtype == np.float32
    np.testing.assert_array_equal(fused.present, ~lacking_both)
    assert not fused.vectors[lacking_both].any()
    assert (np.abs(fused.vectors[fused.present]).sum(1) > 0).all()
    # what stands in the rows of an absent side does not matter, not even NaN
    spoilt = [Features(np.where(p[:, None], v, np.nan), p) for v, p in features]
    np.testing.assert_array_equal(fusion.transform(spoilt).vectors, fused.vectors)
    np.testing.assert_array_equal(fitted(kind, spoilt).transform(features).vectors, fused.vectors)
    if kind == "cca":  # the present side's own projection
        rows = (features[0].vectors - fusion.arrays["mean0"]) * fusion.arrays["scale0"] @ fusion.arrays["axes0"]
        np.testing.assert_allclose(fused.vectors[only_first], rows[only_first], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_only_training_items_are_fitted_to_and_new_ones_are_fused(kind: Kind) -> None:
    features = world()
    fusion = fitted(kind, features)
    changed = [Features(v.copy(), p) for v, p in features]
    for vectors, _ in changed:
        vectors[61:] *= -7
    other = fitted(kind, changed)
    for name, array in fusion.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)
    new = [Features(v[[0, 70, 5]], p[[0, 70, 5]]) for v, p in features]  # another catalogue
    whole = fusion.transform(features).vectors
    np.testing.assert_allclose(fusion.transform(new).vectors, whole[[0, 70, 5]], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_columns_constants_and_more_columns_than_items(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    there = np.arange(13) > 0
    wide = rng.standard_normal((13, 40)).astype(np.float32)
    wide[:, 3], wide[:, 7] = 0, 1e6
    flat = np.full((13, 4), 0.1, np.float32)  # a modality that says nothing
    features = [
        Features(wide, there),
        Features(rng.standard_normal((13, 30), np.float32), there),
        Features(flat, there),
    ]
    pairs = rng.integers(1, 13, (20, 2))
    fusion = Fusion(kind, None if kind == "concat" else 20, steps=3).fit(features, there, pairs)
    fused = fusion.transform(features).vectors
    assert np.isfinite(fused).all() and fused[1:].any(1).all() and not fused[0].any()
    if kind in ("pca", "cca", "average"):
        assert np.abs(fusion.arrays["axes0"][[3, 7]]).max() < 1e-9 > np.abs(fusion.arrays["axes2"]).max()
        assert fused.shape == (13, 20) and not fused[:, 13:].any()  # axes that 12 items do not have
    surprise = [Features(v * (2 if m == 2 else 1), p) for m, (v, p) in enumerate(features)]
    np.testing.assert_allclose(fusion.transform(surprise).vectors, fused, atol=1e-6)  # constant in training: unread


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(kind: Kind, tmp_path: Path) -> None:
    features = world(lacking=0.2)
    fusion = fitted(kind, features)
    fusion.save(tmp_path / "deep" / "fusion.safetensors")
    again = Fusion.load(tmp_path / "deep" / "fusion.safetensors")
    assert (again.kind, again.dim, again.regularisation) == (fusion.kind, fusion.dim, fusion.regularisation)
    np.testing.assert_array_equal(again.transform(features).vectors, fusion.transform(features).vectors)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["fusion.safetensors"]


def test_refusals(tmp_path: Path) -> None:
    features = world()
    lonely = [features[0], Features(features[1].vectors, trained(1) & (np.arange(NUM + 1) > 0))]
    apart = [Features(v, (np.arange(NUM + 1) % 2 == m) & (np.arange(NUM + 1) > 0)) for m, (v, _) in enumerate(features)]
    bad = [features[0], Features(features[1].vectors.copy(), features[1].present)]
    bad[1].vectors[9, 1] = np.inf
    small = [Features(v / 1000, p) for v, p in features]
    huge = [Features(np.sign(v) * np.float32(3e38), p) for v, p in features]
    other = Features(np.ones((3, 2), np.float32), np.ones(3, bool))
    broken = tmp_path / "broken"
    broken.write_bytes(b"no fusion")
    cases: list[tuple[str, Any]] = [
        ("leave dim", lambda: Fusion("concat", 3)),
        ("at least 1", lambda: Fusion("pca", 0)),
        ("above 0", lambda: Fusion("cca", regularisation=0)),
        ("modality 2 has 1 training items", lambda: fitted("concat", lonely)),
        ("0 training items have all 2", lambda: fitted("cca", apart)),
        ("at least 2 modalities", lambda: fitted("cca", features[:1])),
        ("not finite for item 9", lambda: fitted("pca", bad)),
        ("no modality", lambda: Fusion().fit([], trained())),
        ("same items", lambda: Fusion().fit([features[0], other], trained())),
        ("give a bool", lambda: Fusion().fit(features, trained()[1:])),
        ("is empty", lambda: Fusion().transform(features)),
        ("is empty", lambda: Fusion().save(tmp_path / "x")),
        ("fitted to \\[6, 5\\]", lambda: fitted("pca", features).transform(features[::-1])),
        ("learns from", lambda: Fusion("gated").fit(features, trained())),
        ("not for training", lambda: Fusion("gated").fit(features, trained(), np.array([[1, 70]]))),
        ("not for training", lambda: Fusion("gated").fit(features, trained(), np.array([[0, 7]]))),
        ("too large", lambda: fitted("pca", small).transform(huge)),
        ("no readable fusion", lambda: Fusion.load(broken)),
        ("no readable fusion", lambda: Fusion.load(tmp_path / "nothing")),
    ]  # fmt: skip
    for message, call in cases:
        with pytest.raises(InputError, match=message) as caught, np.errstate(over="ignore"):
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gated", "attention"])
def test_learned_fusion_brings_co_liked_items_together(kind: Kind) -> None:
    """Likes follow the sign of one direction that PCA finds last; an item that lacks a side is placed, too."""
    rng = np.random.default_rng(0)
    taste = np.where(rng.random(NUM + 1) < 0.5, -1.0, 1.0)
    features = []
    for _ in range(2):
        noise = 3 * rng.standard_normal((NUM + 1, 8))
        noise[:, 0] = taste + 0.3 * rng.standard_normal(NUM + 1)
        features.append(Features(noise.astype(np.float32), (np.arange(NUM + 1) > 0) & (rng.random(NUM + 1) > 0.2)))
    features[0].present[1:] |= ~features[1].present[1:]
    sides = [np.flatnonzero(trained() & (taste == side) & (np.arange(NUM + 1) > 0)) for side in (-1, 1)]
    pairs = np.concatenate([rng.choice(side, (500, 2)) for side in sides])
    fusion = Fusion(kind, 8, steps=60).fit(features, trained(), pairs, seed=1)
    vectors = fusion.transform(features).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, atol=1e-5)
    new = np.arange(61, NUM + 1)
    same = taste[new][:, None] == taste[new]
    cosine = vectors[new] @ vectors[new].T
    before = Fusion("concat").fit(features, trained()).transform(features).vectors[new]
    np.fill_diagonal(same, False)
    other = taste[new][:, None] != taste[new]
    gap = cosine[same].mean() - cosine[other].mean()
    gap_before = ((before @ before.T)[same].mean() - (before @ before.T)[other].mean()) / 2  # its cosines reach 2
    assert gap > 0.4 > 1.6 * gap_before
    torch.manual_seed(99)  # the caller's random state neither matters nor is touched
    state = torch.random.get_rng_state()
    again = Fusion(kind, 8, steps=60).fit(features, trained(), pairs, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(again.transform(features).vectors, vectors)
    different = Fusion(kind, 8, steps=60).fit(features, trained(), pairs, seed=2)
    assert not np.allclose(different.transform(features).vectors, vectors)


def test_network_leaves_missing_modalities_out() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    for attention in (False, True):
        network = FusionNetwork([3, 2], 5, attention)
        fused = network([x, y], present)
        other = network([torch.where(present[:, :1], x, 9.0), torch.where(present[:, 1:], y, -9.0)], present)
        torch.testing.assert_close(fused, other)
        # with one modality the gate is 1, and there is nothing to attend to
        alone = torch.nn.functional.normalize(torch.tanh(network.project[0](x[1])), dim=0)
        torch.testing.assert_close(fused[1], alone)
        fused.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_info_nce_by_hand() -> None:
    """Two pairs on two axes at temperature 1; then a pair that shares an item, which is no negative."""
    a, b = torch.eye(2), torch.eye(2)
    expected = -np.log(np.e / (np.e + 1))
    loss = info_nce(a, b, torch.tensor([[1, 2], [3, 4]]), temperature=1.0)
    assert loss.item() == pytest.approx(expected)
    shared = info_nce(a, b, torch.tensor([[1, 2], [3, 2]]), temperature=1.0)
    # first direction: candidate 2 of the other pair is the anchor's own partner and is left out, loss 0
    assert shared.item() == pytest.approx(expected / 2)
    crossed = info_nce(a, b, torch.tensor([[1, 2], [2, 1]]), temperature=1.0)
    assert crossed.item() == pytest.approx(0)


def test_liked_pairs() -> None:
    user, item = np.array([7, 3, 7, 3, 7, 9]), np.array([1, 4, 2, 5, 3, 6])
    pairs = liked_pairs(user, item, seed=0)
    owner = dict(zip(item.tolist(), user.tolist(), strict=True))
    assert sorted(pairs[:, 0].tolist()) == [1, 2, 3, 4, 5]
    assert all(owner[a] == owner[b] and a != b for a, b in pairs.tolist())
    drawn = {b for seed in range(50) for a, b in liked_pairs(user, item, seed).tolist() if a == 1}
    assert drawn == {2, 3}
    assert liked_pairs(np.array([1]), np.array([1])).shape == (0, 2)


def test_learned_fusions_train_inside_an_evaluation() -> None:
    generator = np.random.default_rng(0)
    sides = [Features(generator.normal(size=(21, d)).astype(np.float32), np.arange(21) > 0) for d in (6, 4)]
    pairs = generator.integers(1, 21, (40, 2))
    with torch.inference_mode():
        inside = Fusion("gated", 4, steps=3).fit(sides, np.arange(21) > 0, pairs, 0).transform(sides)
    outside = Fusion("gated", 4, steps=3).fit(sides, np.arange(21) > 0, pairs, 0).transform(sides)
    np.testing.assert_array_equal(inside.vectors, outside.vectors)
