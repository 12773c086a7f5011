"""Fusion and picture features, measured.

    python benchmarks/fusion.py [--items 10000] [--pictures DIR]

For `--items` items with 2,048 and 384 numbers that share 40 directions, of which a tenth lacks the first modality:
seconds to fit each kind of fusion and to transform all items. Then a folder of pictures (ML-1M's posters under
MSMREC_DATA, where they are) through ColourAndShape and through a ResNet-50 with random weights, which cost what
trained ones do. Prints wall and CPU seconds: CPU seconds do not count other processes, but threads that wait for a
busy core do count: on a busy machine set OMP_NUM_THREADS=1.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from msmrec.fusion import Fusion, Kind
from msmrec.media.features import Features
from msmrec.media.image_networks import TransformersImageEncoder
from msmrec.media.images import ColourAndShape, ImageEncoder, ItemImages
from msmrec.media.resnet import CROP, MEAN, STD

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


def random_resnet50(folder: Path) -> ImageEncoder:
    """microsoft/resnet-50 with random weights, in `folder`."""
    from transformers import ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig()).save_pretrained(folder)  # the configuration's defaults are ResNet-50
    about = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": CROP}, "crop_pct": 0.875}
    about |= {"image_mean": MEAN.tolist(), "image_std": STD.tolist(), "do_resize": True, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return TransformersImageEncoder(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=10_000)
    posters = Path(os.environ.get("MSMREC_DATA", "data")) / "posters" / "ml-1m"
    parser.add_argument("--pictures", type=Path, default=posters if posters.is_dir() else None)
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
        with tempfile.TemporaryDirectory() as folder:
            encoders = {"ColourAndShape": ColourAndShape(), "ResNet-50": random_resnet50(Path(folder))}
            print("\n| pictures | numbers | s | CPU s | a second | unreadable |\n|:--|--:|--:|--:|--:|--:|", flush=True)
            for name, encoder in encoders.items():
                encoder.encode(paths[:8])  # imports apart
                wall, cpu = time.perf_counter(), time.process_time()
                vectors = encoder.encode(paths)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                bad = int(np.isnan(vectors).any(1).sum())
                print(f"| {name} | {vectors.shape[1]} | {wall:.1f} | {cpu:.1f} | {len(paths) / wall:,.0f} | {bad} |")


if __name__ == "__main__":
    main()
