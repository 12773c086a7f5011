"""Item vectors for retrieval: text, collaborative and aligned, each of length 1, side by side (RALLRec, eq. 7)."""

from typing import Literal

import numpy as np

from msmrec.artifacts import InputError
from msmrec.data.datamodule import RecDataModule
from msmrec.item_vectors import check_vectors, normalised, run_vectors
from msmrec.text.item_text import ItemText

Part = Literal["text", "collaborative", "aligned"]


class ItemVectors:
    """Which vectors say that two items are alike.

    Args:
        parts: of "text" ([title || description]), "collaborative" (the vectors of a recommender) and "aligned" (the
            text vectors as the projector maps them); the paper's full variant has all three.
        text: where texts come from; needed for "text".
        collaborative: name of the upstream run whose item vectors are used, under `needs:`.
        aligned: name of the projector's run, under `needs:`.
        separate: keep the parts as spaces of their own, whose scores are mixed (Hybrid-Score), instead of side by side.
    """

    def __init__(
        self,
        parts: list[Part],
        text: ItemText | None = None,
        collaborative: str = "lightgcn_ml1m_clicks",
        aligned: str = "projector_ml1m",
        separate: bool = False,
    ) -> None:
        if not parts or len(set(parts)) < len(parts):
            raise InputError(f"vectors.parts {parts}: name at least one of text, collaborative, aligned, each once")
        if "text" in parts and text is None:
            raise InputError("vectors.parts has text, but vectors.text says not where texts come from")
        self.parts, self.text, self.separate = parts, text, separate
        self.runs = {"collaborative": collaborative, "aligned": aligned}

    def spaces(self, data: RecDataModule, aligned: np.ndarray | None = None) -> list[np.ndarray]:
        """One matrix (N + 1, D), or one for each part where they are `separate`; rows of length at most 1.

        Args:
            data: its dataset, and where the upstream runs are.
            aligned: (N + 1, D) vectors to take instead of the projector run's, while a projector is being trained.
        """
        parts = []
        for part in self.parts:
            if part == "text":
                assert self.text is not None
                vectors = self.text.title_and_description(data.dataset, data.root, data.cache).reshape(
                    data.num_items + 1, -1
                )
            elif part == "aligned" and aligned is not None:
                vectors = aligned
            else:
                vectors = run_vectors(data.run(self.runs[part]), data.num_items)
            parts.append(normalised(check_vectors(vectors, data.num_items)))
        return parts if self.separate else [np.concatenate(parts, 1) / np.sqrt(np.float32(len(parts)))]
