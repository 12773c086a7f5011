"""One vector an item from several: text beside pictures beside sound.

    fusion = Fusion("cca").fit([text, visual], train=trained_on)
    fused = fusion.transform([text, visual])   # Features: (N + 1, 64)

Everything is fitted on training items alone and applied to all, new ones included. Each modality's columns are first
centred and scaled to variance 1 over the training items that have it; a column that is constant there is left out.

| kind | the fused vector | by default |
|---|---|---|
| concat | the modalities side by side, each of length 1 | |
| pca | principal components of the modalities side by side, each with total variance 1 | 128 |
| cca | mean of the canonical variates of the modalities that an item has (MAXVAR for three and more) | 64 |
| average | mean of the modalities' principal components, each modality of mean square length 1 | 128 |
| gated | mean of learned projections of principal components, weighted item by item | 128 |
| attention | the same, where each modality reads the others by cross-attention | 128 |

An item that lacks a modality is fused from what it has: cca, average, gated and attention leave the missing side out,
concat and pca take the training mean for it, which adds nothing. An item that has none has a zero vector.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msmrec.artifacts import InputError, atomic_file, first_line
from msmrec.learned_fusion import FusionNetwork, train_fusion
from msmrec.linear_fusion import canonical_blocks, principal_blocks, unit_axes
from msmrec.media.features import Features

log = logging.getLogger(__name__)

Kind = Literal["concat", "pca", "cca", "average", "gated", "attention"]

FORMAT = 1  # raise when the saved files' content changes
DIMS = {"pca": 128, "cca": 64, "average": 128, "gated": 128, "attention": 128}
COMPONENTS = 256  # that the learned kinds read of each modality: a tenth of the time for 2,048 columns
CONSTANT = 1e-6  # of a column's size: a deviation below it is rounding


class Fusion:
    """Fuses the modalities of items; see the table above.

    Args:
        kind: how.
        dim: width of the fused vectors; by default the table's. Axes that the data does not have stay 0. concat keeps
            all columns and takes none.
        regularisation: cca: added to the variance of each column, which is 1. Too little, and features with many
            columns correlate by chance: with 1,710 ML-1M films fitted (384 numbers of text, 452 of the poster), the
            first eight variates of 428 others correlate by .01, .20, .18 with 0.0001, 1 and 10, and the genres of
            their ten nearest agree by a cosine of .26, .32, .37. Towards infinity it is partial least squares.
        steps: gated and attention: training steps.

    Raises:
        InputError: dim for concat, or a number out of range.
    """

    def __init__(
        self, kind: Kind = "cca", dim: int | None = None, regularisation: float = 10.0, steps: int = 500
    ) -> None:
        if kind == "concat" and dim is not None:
            raise InputError(f"fusion concat keeps all columns: leave dim ({dim}) out, or take pca")
        if (dim is not None and dim < 1) or regularisation <= 0 or steps < 1:
            raise InputError(
                f"fusion: dim ({dim}) and steps ({steps}) must be at least 1, regularisation ({regularisation}) above 0"
            )
        self.kind: Kind = kind
        self.dim = DIMS.get(kind) if dim is None else dim
        self.regularisation, self.steps = regularisation, steps
        self.arrays: dict[str, NDArray[np.float32]] = {}  # what was fitted, by name; modalities are numbered

    def fit(
        self,
        features: Sequence[Features],
        train: NDArray[np.bool_],
        pairs: NDArray[np.integer[Any]] | None = None,
        seed: int = 0,
    ) -> Fusion:
        """Fits to training items, and returns itself.

        Args:
            features: M modalities of the same N items, in an order that `transform` keeps to.
            train: (N + 1,) bool: items that have a training rating.
            pairs: (P, 2) training items that the same user liked, for the learned kinds (`learned_fusion.liked_pairs`).
            seed: of the learned kinds' weights and batches.

        Raises:
            InputError: modalities of different catalogues or with values that are not finite; too few training items
                that have what is needed; no pairs for a learned kind, or pairs of items that are not for training.
        """
        features = self._checked(features)
        if train.shape != (len(features[0].present),) or train.dtype != bool:
            raise InputError(
                f"train has shape {train.shape} and type {train.dtype}: give a bool for each of N + 1 items"
            )
        usable = train.copy()
        usable[0] = False
        self._fit_scales(features, usable)
        if self.kind in ("pca", "cca"):
            whole = usable & np.all([present for _, present in features], axis=0)
            if whole.sum() < 2:
                raise InputError(
                    f"fusion {self.kind}: {whole.sum()} training items have all {len(features)} modalities, it needs "
                    "2; take average or concat"
                )
            blocks = [self._standard(m, vectors[whole]).astype(np.float64) for m, (vectors, _) in enumerate(features)]
            fit = principal_blocks if self.kind == "pca" else canonical_blocks
            assert self.dim is not None
            options = {} if self.kind == "pca" else {"regularisation": self.regularisation}
            self._take([axes.astype(np.float32) for axes in fit(blocks, self.dim, **options)])
        elif self.kind == "average":
            assert self.dim is not None
            chosen = [(m, vectors[present & usable]) for m, (vectors, present) in enumerate(features)]
            self._take([unit_axes(self._standard(m, rows).astype(np.float64), self.dim) for m, rows in chosen])
        elif self.kind in ("gated", "attention"):
            self._train(features, usable, pairs, seed)
        return self

    def _fit_scales(self, features: Sequence[Features], usable: NDArray[np.bool_]) -> None:
        """Mean and scale of every column of each modality, over its training items; a constant column gets scale 0."""
        self.arrays = {}
        for m, (vectors, present) in enumerate(features):
            rows = vectors[present & usable].astype(np.float64)
            if len(rows) < 2:
                raise InputError(f"fusion: modality {m + 1} has {len(rows)} training items with a vector; it needs 2")
            mean, deviation = rows.mean(0), rows.std(0)
            varies = deviation > CONSTANT * (np.abs(mean) + deviation.max(initial=0))
            self.arrays[f"mean{m}"] = mean.astype(np.float32)
            self.arrays[f"scale{m}"] = np.divide(1, deviation, out=np.zeros_like(mean), where=varies).astype(np.float32)

    def transform(self, features: Sequence[Features]) -> Features:
        """The fused vectors of any items, new ones included: (N + 1, D) float32.

        Raises:
            InputError: nothing was fitted or loaded; other modalities than it was fitted to; values not finite.
        """
        features = self._checked(features)
        widths = [vectors.shape[1] for vectors, _ in features]
        fitted = [len(self.arrays[f"mean{m}"]) for m in range(self._count())]
        if not fitted:
            raise InputError("this fusion is empty: call fit or load first")
        if widths != fitted:
            raise InputError(f"features of widths {widths}, but the fusion was fitted to {fitted}")
        present = np.stack([present for _, present in features], 1)  # (N + 1, M)
        some = np.asarray(present.any(1))
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            fused = self._fuse([self._standard(m, vectors) for m, (vectors, _) in enumerate(features)], present)
        fused[~some] = 0
        if len(bad := np.flatnonzero(~np.isfinite(fused).all(1))):
            raise InputError(
                f"fusion: values of item {bad[0]} are too large ({len(bad):,} such items); mend the features"
            )
        return Features(fused, some)

    def save(self, path: Path) -> None:
        """Writes what was fitted to one safetensors file."""
        from safetensors.numpy import save_file

        if not self.arrays:
            raise InputError("this fusion is empty: call fit before save")
        settings: dict[str, Any] = {"kind": self.kind, "dim": None if self.kind == "concat" else self.dim}
        settings |= {"regularisation": self.regularisation, "steps": self.steps}
        with atomic_file(path) as temporary:
            # safetensors takes the bytes as they lie, so columns-first arrays would come back mixed up
            arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
            save_file(arrays, temporary, {"format": str(FORMAT), "fusion": json.dumps(settings)})

    @classmethod
    def load(cls, path: Path) -> Fusion:
        """The fusion that `save` wrote.

        Raises:
            InputError: there is no such file, or it is none of a fusion.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                about = file.metadata() or {}
                if about.get("format") != str(FORMAT):
                    raise InputError(f"{path}: no fusion of format {FORMAT}; fit it again")
                self = cls(**json.loads(about["fusion"]))
                self.arrays = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: no readable fusion ({first_line(error)}); fit it again") from None
        return self

    def _checked(self, features: Sequence[Features]) -> list[Features]:
        """The modalities, in float32, zero where an item has none."""
        if not features:
            raise InputError("fusion: no modality was given")
        checked = []
        for m, (vectors, present) in enumerate(features, 1):
            if vectors.ndim != 2 or not vectors.shape[1] or present.shape != (len(features[0].present),):
                raise InputError(
                    f"fusion: modality {m} has shape {vectors.shape}, modality 1 {features[0].vectors.shape}: give "
                    "vectors of the same items"
                )
            if len(vectors) != len(present):
                raise InputError(f"fusion: modality {m} has {len(vectors):,} vectors and {len(present):,} flags")
            with np.errstate(over="ignore"):  # too large for float32: becomes infinite, which is refused
                rows = np.where(present[:, None], vectors, 0).astype(np.float32)
            if len(bad := np.flatnonzero(~np.isfinite(rows).all(1))):
                raise InputError(
                    f"fusion: modality {m} has a value that is not finite for item {bad[0]} ({len(bad):,} such items)"
                )
            checked.append(Features(rows, present.astype(bool)))
            checked[-1].present[0] = False
        return checked

    def _standard(self, m: int, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Columns of modality `m` with mean 0 and variance 1 over the training items; constant ones are 0."""
        result: NDArray[np.float32] = (vectors - self.arrays[f"mean{m}"]) * self.arrays[f"scale{m}"]
        return result

    def _count(self) -> int:
        """M that was fitted."""
        return sum(name.startswith("mean") for name in self.arrays)

    def _take(self, axes: Sequence[NDArray[np.float32]]) -> None:
        """Keeps the projection (D_m, dim) of each modality, missing axes as zeros."""
        assert self.dim is not None
        for m, matrix in enumerate(axes):
            padded = np.zeros((len(matrix), self.dim), np.float32)
            padded[:, : matrix.shape[1]] = matrix
            self.arrays[f"axes{m}"] = padded

    def _fuse(self, standard: list[NDArray[np.float32]], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(N + 1, D) from standardised modalities."""
        if self.kind in ("gated", "attention"):
            return self._network().fuse([rows @ self.arrays[f"axes{m}"] for m, rows in enumerate(standard)], present)
        if self.kind == "concat":
            lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in standard]
            units = [
                np.divide(rows, length, out=np.zeros_like(rows), where=(length > 0) & present[:, m : m + 1])
                for m, (rows, length) in enumerate(zip(standard, lengths, strict=True))
            ]
            return np.concatenate(units, 1)
        fused = np.zeros((len(present), self.arrays["axes0"].shape[1]), np.float32)
        for m, rows in enumerate(standard):
            fused += (rows @ self.arrays[f"axes{m}"]) * present[:, m : m + 1]
        if self.kind != "pca":
            fused /= np.maximum(present.sum(1, keepdims=True, dtype=np.float32), 1)
        return fused

    def _train(
        self, features: list[Features], usable: NDArray[np.bool_], pairs: NDArray[np.integer[Any]] | None, seed: int
    ) -> None:
        """Trains the network and keeps its weights."""
        if pairs is None or pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
            raise InputError(
                f"fusion {self.kind} learns from (P, 2) pairs of items that the same users liked: give them"
            )
        if pairs.min() < 1 or pairs.max() >= len(usable) or not usable[pairs].all():
            raise InputError(f"fusion {self.kind}: a pair names an item that is not for training; leave such pairs out")
        present = np.stack([present for _, present in features], 1)
        seen = np.asarray(present.any(1))[pairs].all(1)
        if not seen.all():
            log.info("fusion %s: %d of %d pairs have an item without any vector", self.kind, (~seen).sum(), len(seen))
        if not seen.any():
            raise InputError(f"fusion {self.kind}: in no pair do both items have a vector")
        components = []
        for m, (vectors, there) in enumerate(features):
            standard = self._standard(m, vectors)
            axes = unit_axes(standard[there & usable].astype(np.float64), COMPONENTS)
            if not axes.shape[1]:  # every column is constant: the network reads a zero
                axes = np.zeros((len(axes), 1), np.float32)
            self.arrays[f"axes{m}"] = axes * np.float32(np.sqrt(axes.shape[1]))  # variance 1 on average
            components.append(standard @ self.arrays[f"axes{m}"])
        chosen = pairs[seen].astype(np.int64)
        network = train_fusion(self._network, components, present, chosen, self.steps, seed)
        self.arrays |= {f"network.{name}": tensor.numpy() for name, tensor in network.state_dict().items()}

    def _network(self) -> FusionNetwork:
        """The network of the learned kinds, with the fitted weights where there are some."""
        import torch

        assert self.dim is not None
        widths = [self.arrays[f"axes{m}"].shape[1] for m in range(self._count())]
        network = FusionNetwork(widths, self.dim, attention=self.kind == "attention")
        weights = {k.removeprefix("network."): torch.from_numpy(v) for k, v in self.arrays.items() if "network." in k}
        if weights:
            network.load_state_dict(weights)
        return network
