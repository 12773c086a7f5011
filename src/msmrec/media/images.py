"""Vectors of pictures: posters, or frames of trailers.

- ``ColourAndShape``: colour histogram and oriented gradients; needs no weights.
- ``TransformersImageEncoder``: CLIP, ResNet, ViT, DINO ... from transformers (media/image_networks.py).
- ``ResNet50``: torchvision's (media/resnet.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msmrec.artifacts import InputError
from msmrec.media.files import FileEncoder, ItemFiles

if TYPE_CHECKING:
    from PIL.Image import Image

EDGE, CELL, ORIENTATIONS = 64, 16, 9  # pixels, pixels, bins over 180 degrees
COLOURS = 8 * 4 * 4  # bins of hue, saturation, value
SHAPES = (EDGE // CELL - 1) ** 2 * 4 * ORIENTATIONS  # overlapping blocks of 2 x 2 cells


class ImageEncoder(FileEncoder):
    """Turns pictures into vectors; see `FileEncoder`."""


class ItemImages(ItemFiles):
    """Vectors from a folder of pictures named by item; several of an item (frames) are averaged. See `ItemFiles`.

    Args:
        folder: of .jpg, .jpeg, .png or .webp files.
        encoder: by default `ColourAndShape`, which needs no weights.
    """

    suffixes = (".jpg", ".jpeg", ".png", ".webp")
    unit = "picture"

    def __init__(self, folder: str, encoder: ImageEncoder | None = None) -> None:
        super().__init__(folder, encoder or ColourAndShape())


class ColourAndShape(ImageEncoder):
    """A joint colour histogram (HSV, 128 bins) beside a histogram of oriented gradients (HOG, 324): 452 numbers.

    Pictures are brought to 64 x 64 pixels, whatever their shape. Both halves have length 1, or 0 for the gradients of
    a picture of one colour: the colours as square roots of their shares (products are then Bhattacharyya
    coefficients), the gradients in 9 directions by cells of 16 pixels and overlapping blocks of 2 x 2 cells
    (Dalal and Triggs, 2005). It needs neither weights nor a process pool: a poster
    takes about 1 millisecond of CPU time (benchmarks/fusion.py).
    """

    @property
    def fingerprint(self) -> str:
        """Sizes and bins."""
        return f"ColourAndShape(edge={EDGE}, cell={CELL}, orientations={ORIENTATIONS}, colours=8x4x4, format=1)"

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return COLOURS + SHAPES

    def encode(self, paths: Sequence[Path]) -> np.ndarray:
        """See `FileEncoder.encode`."""
        vectors = np.full((len(paths), self.dim), np.nan, np.float32)
        for i, path in enumerate(paths):
            if (picture := read_picture(path)) is not None:
                vectors[i] = self.describe(picture)
        return vectors

    def describe(self, picture: Image) -> np.ndarray:
        """(452,) of one RGB picture."""
        from PIL import Image
        from skimage.feature import hog

        small = picture.resize((EDGE, EDGE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        hue, saturation, value = np.asarray(small.convert("HSV")).reshape(-1, 3).astype(np.int64).T  # 0 to 255
        colours = np.bincount((hue // 32) * 16 + (saturation // 64) * 4 + value // 64, minlength=COLOURS)
        grey = np.asarray(small.convert("L"), np.float64) / 255
        shapes = hog(grey, ORIENTATIONS, (CELL, CELL), (2, 2))
        shapes /= max(float(np.linalg.norm(shapes)), 1e-12)
        return np.concatenate([np.sqrt(colours / EDGE**2), shapes])


def read_picture(path: Path) -> Image | None:
    """The picture in RGB, turned as its camera says; None when the file is damaged or no picture."""
    pillow()
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            turned = ImageOps.exif_transpose(picture)
            return (_eight_bits(turned) if turned.mode[0] in "IF" else turned).convert("RGB")
    except Exception:  # damaged files raise OSError, ValueError, SyntaxError, struct.error ... by format
        return None


def _eight_bits(picture: Image) -> Image:
    """A grey picture of whole numbers (16 bits; the largest, where more) or of fractions, in 8 bits.

    `convert` alone cuts all above 255 off, which leaves it white, and fractions of 1 down to black.
    """
    from PIL import Image

    grey = np.nan_to_num(np.asarray(picture, np.float64))
    white = 65535.0 if picture.mode[0] == "I" else 1.0 if grey.max() <= 1 else 255.0
    return Image.fromarray((grey.clip(0) / max(white, grey.max()) * 255).round().astype(np.uint8))


def pillow() -> None:
    """Refuses where the extra is not installed."""
    try:
        import PIL  # noqa: F401
        import skimage  # noqa: F401
    except ImportError as error:
        raise InputError(f'pictures need Pillow and scikit-image ({error}): pip install -e ".[media]"') from None
