"""Texts a second through all-MiniLM-L6-v2, by the encoder's own choice of precision and in float32, and a second time.

Texts are made up of common words, 60 to 130 of them. Hands texts and vectors to the peer, which says how near they are.
"""

import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch  # noqa: F401 (whose threads `arguments` sets)
from common import arguments, emit, seconds

from msmrec.text.encoder import SentenceEncoder
from msmrec.text.vector_cache import encode_cached

WORDS = (
    "the film follows a young detective who returns to her home town after many years and finds that an old crime was "
    "never solved while music light and silence slowly reveal what neighbours hide from each other in a story of loss "
    "friendship betrayal and courage told with dry humour long takes wide landscapes crowded rooms and restless cameras"
).split()


def main() -> None:
    given = arguments(__doc__, texts=256)
    rng = np.random.default_rng(0)
    count = 24 if given.quick else given.texts
    texts = [" ".join(rng.choice(WORDS, size)) for size in rng.integers(60, 131, count)]
    (given.work / "model.txt").write_text(str(SentenceEncoder()._root))
    (given.work / "texts.json").write_text(json.dumps(texts))
    what = f"{count} texts, cold"
    for name, precision in (("ours", "auto"), ("ours, float32", "float32")):
        encoder = SentenceEncoder(precision=precision)  # type: ignore[arg-type]
        encoder.encode(texts[:8])  # loads the model
        encode = partial(encoder.encode, texts)
        taken = seconds(encode, 5)
        np.save(given.work / f"{name}.npy", encode())
        measures = {what: taken}
        if name == "ours":
            with tempfile.TemporaryDirectory() as folder:
                cached = partial(encode_cached, encoder, texts, Path(folder))
                cached()
                measures[f"{count} texts, a second time"] = seconds(cached, 3)
        emit(
            name,
            measures,
            ("torch", "transformers"),
            note=f"{encoder._device_and_precision[1]}; {count / min(taken):,.0f} texts a second",
        )


if __name__ == "__main__":
    main()
