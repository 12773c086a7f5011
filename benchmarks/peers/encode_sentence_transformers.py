"""sentence-transformers as it comes: float32, its own batches and order."""

import json

import numpy as np
from common import arguments, emit, seconds
from sentence_transformers import SentenceTransformer


def main():
    given = arguments(__doc__)
    texts = json.loads((given.work / "texts.json").read_text())
    model = SentenceTransformer((given.work / "model.txt").read_text(), device="cpu")
    model.encode(texts[:8])
    found = []
    what = f"{len(texts)} texts, "
    taken = seconds(lambda: found.append(model.encode(texts)), 5)
    emit(
        "sentence-transformers",
        {what + "cold": taken, what + "a second time": taken},
        ("sentence-transformers", "torch", "transformers"),
        quality={
            f"smallest cosine to {name}": f"{float((np.load(given.work / f'{name}.npy') * found[0]).sum(1).min()):.6f}"
            for name in ("ours", "ours, float32")
        },
        note=f"float32, {len(texts) / min(taken):,.0f} texts a second; keeps nothing, so a second time costs the same",
    )


if __name__ == "__main__":
    main()
