"""Fusion and picture features, measured.

    python benchmarks/fusion.py [--items 10000] [--pictures DIR]

For `--items` items with 2,048 and 384 numbers that share 40 directions, of which a tenth lacks the first modality:
seconds to fit each kind of fusion and to transform all items. With `--pictures`, a folder of pictures: pictures a
second through ColourAndShape in one process. Prints wall and CPU seconds: CPU seconds do not count other
processes, but threads that wait for a busy core do count: on a busy machine set OMP_NUM_THREADS=1.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from msmrec.fusion import Fusion, Kind
from msmrec.media.features import Features
from msmrec.media.images import ColourAndShape, ItemImages

WIDTHS, SHARED = (2048, 384), 40


def two_modalities(num_items: int, seed: int = 0) -> list[Features]:
    """Noise with directions in common; row 0 is the padding."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((num_items + 1, SHARED), np.float32)
    features = []
    for width, lacking in zip(WIDTHS, (0.1, 0.0), strict=True):
        vectors = latent @ rng.standard_normal((SHARED, width), np.float32)
        vectors += 4 * rng.standard_normal(vectors.shape, np.float32)
        present = rng.random(num_items + 1) >= lacking
        features.append(Features(np.where(present[:, None], vectors, 0), present))
    return features


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    features = two_modalities(args.items)
    train = np.random.default_rng(1).random(args.items + 1) < 0.95
    train[0] = False
    pairs = np.random.default_rng(2).choice(np.flatnonzero(train & features[1].present), (50_000, 2))
    print(f"{args.items:,} items, {WIDTHS} numbers, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| kind | fit, s | CPU s | transform, s | width |\n|:--|--:|--:|--:|--:|", flush=True)
    kinds: tuple[Kind, ...] = ("concat", "pca", "cca", "average", "gated", "attention")
    for kind in kinds:
        wall, cpu = time.perf_counter(), time.process_time()
        fusion = Fusion(kind, steps=100).fit(features, train, pairs)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        begin = time.perf_counter()
        fused = fusion.transform(features)
        done = time.perf_counter() - begin
        note = " (100 steps)" if kind in ("gated", "attention") else ""
        print(f"| {kind}{note} | {wall:.1f} | {cpu:.1f} | {done:.2f} | {fused.vectors.shape[1]} |", flush=True)
    if args.pictures:
        paths = sorted(path for path in args.pictures.iterdir() if path.suffix.lower() in ItemImages.suffixes)
        ColourAndShape().encode(paths[:8])  # imports apart
        wall, cpu = time.perf_counter(), time.process_time()
        vectors = ColourAndShape().encode(paths)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"\n{len(vectors):,} pictures, {vectors.shape[1]} numbers: {wall:.1f} s, {cpu:.1f} CPU s, ", end="")
        print(f"{len(vectors) / wall:,.0f} a second; {int(np.isnan(vectors).any(1).sum())} cannot be read")


if __name__ == "__main__":
    main()
