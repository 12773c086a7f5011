"""Encodes the modality texts of a config's items and prints the shape of the vectors."""

from collections.abc import Sequence

from msmrec.verbs.describe import texts_of


def main(args: Sequence[str]) -> None:
    """Takes the arguments of train.py."""
    data, text = texts_of(args)
    made = text.vectors(data.dataset, data.root, data.cache)
    print(f"{made.vectors.shape} vectors for {', '.join(text.names)}; {made.present[1:].mean():.1%} present")
