"""Folders of pictures: which file is whose, what is encoded again, what is refused; and the encoders."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from msmrec.artifacts import InputError
from msmrec.data.prepare import Dataset
from msmrec.media.files import files_of_items
from msmrec.media.image_networks import TransformersImageEncoder
from msmrec.media.images import COLOURS, ColourAndShape, ImageEncoder, ItemImages, read_picture
from msmrec.media.resnet import ResNet50

Image = pytest.importorskip("PIL.Image", reason="pictures need the extra media")


class MeanColour(ImageEncoder):
    """Mean RGB; remembers which files it was asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @property
    def fingerprint(self) -> str:
        return "MeanColour"

    @property
    def dim(self) -> int:
        return 3

    def encode(self, paths: Sequence[Path]) -> np.ndarray:
        self.seen += [path.name for path in paths]
        pictures = [read_picture(path) for path in paths]
        return np.array([[np.nan] * 3 if p is None else np.asarray(p).mean((0, 1)) for p in pictures], np.float32)


def paint(path: Path, *colour: int, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, lossless=True) if path.suffix == ".webp" else Image.new(
        "RGB", size, colour
    ).save(path)


def raw(dataset: Dataset, item: int) -> str:
    return str(dataset.items["raw_item_id"][item - 1])


def test_whose_file_is_it(tmp_path: Path) -> None:
    for name in ("a.jpg", "a_1.PNG", "a_2.webp", "b_1.jpg", "b_1_3.png", "c_x.jpg", "_4.jpg", ".b.jpg", "b.txt"):
        (tmp_path / name).touch()
    for name in ("c/1.jpg", "c/deep/any name.jpeg", "d/1.jpg", ".c/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ids = pl.Series(["a", "b_1", "c"])  # an id with an underscore and a number
    paths, item, others = files_of_items(tmp_path, ids, ItemImages.suffixes)
    found = {str(path.relative_to(tmp_path)): int(i) for path, i in zip(paths, item, strict=True)}
    assert found == {
        "a.jpg": 1, "a_1.PNG": 1, "a_2.webp": 1, "b_1.jpg": 2, "b_1_3.png": 2, "c/1.jpg": 3, "c/deep/any name.jpeg": 3,
    }  # fmt: skip
    assert others == 3  # c_x, _4, d/1


def test_only_new_pictures_are_encoded(tiny: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "posters"
    paint(folder / f"{raw(tiny, 1)}.png", 10, 20, 30)
    paint(folder / f"{raw(tiny, 2)}_0.png", 0, 0, 0)
    paint(folder / f"{raw(tiny, 2)}_1.png", 100, 40, 20)
    paint(folder / raw(tiny, 2) / "third.webp", 200, 50, 40)
    paint(folder / "no such item.png", 1, 2, 3)
    (folder / f"{raw(tiny, 3)}.jpg").write_bytes(b"not a picture")
    encoder = MeanColour()
    images = ItemImages("posters", encoder)
    vectors, present = images.vectors(tiny, tmp_path, tmp_path / "cache")
    assert vectors.shape == (tiny.num_items + 1, 3) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[1], [10, 20, 30], atol=1e-5)
    np.testing.assert_allclose(vectors[2], [100, 30, 20], atol=1e-5)
    assert not vectors[3:].any() and not vectors[0].any()
    assert present.nonzero()[0].tolist() == [1, 2]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [f"{folder}: 1 of 5 files cannot be read and are left out: {raw(tiny, 3)}.jpg"]
    assert f"2 of {tiny.num_items} items have picture files (4 files; 1 others are of no item)" in caplog.text
    assert len(encoder.seen) == 5
    encoder.seen.clear()
    again = images.vectors(tiny, tmp_path, tmp_path / "cache")
    np.testing.assert_array_equal(again.vectors, vectors)
    assert encoder.seen == [f"{raw(tiny, 3)}.jpg"]  # what cannot be read is tried again, nothing else
    encoder.seen.clear()
    paint(folder / f"{raw(tiny, 3)}.jpg", 90, 90, 90)
    paint(folder / f"{raw(tiny, 1)}.png", 11, 21, 31)
    changed = images.vectors(tiny, tmp_path, tmp_path / "cache")
    assert sorted(encoder.seen) == sorted([f"{raw(tiny, 1)}.png", f"{raw(tiny, 3)}.jpg"])
    np.testing.assert_allclose(changed.vectors[[1, 3]], [[11, 21, 31], [90, 90, 90]], atol=1)


def test_folders_that_are_refused(tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "others" / "nobody.png", 1, 1, 1)
    (tmp_path / "damaged").mkdir()
    for item in (1, 2, 3, 4):
        (tmp_path / "damaged" / f"{raw(tiny, item)}.png").write_bytes(b"\x89PNG but no more %d" % item)
    (tmp_path / "file").touch()
    cases = {
        "empty": "no file",
        "others": "1 others",
        "damaged": r"4 of 4 files cannot be read: .*\.png, \.\.\.;",
        "file": "no folder",
        "nowhere": "neither in the data root",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            ItemImages(name, MeanColour()).vectors(tiny, tmp_path, tmp_path / "cache")
        assert "\n" not in str(caught.value)


def test_truncated_and_odd_pictures(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8))
    noise.save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    noise.convert("CMYK").save(tmp_path / "cmyk.jpg")
    noise.convert("L").save(tmp_path / "grey.png")
    noise.convert("P").save(tmp_path / "palette.png")
    noise.convert("RGBA").save(tmp_path / "alpha.png")
    noise.resize((1, 1)).save(tmp_path / "dot.png")
    names = ["whole.jpg", "cut.jpg", "cmyk.jpg", "grey.png", "palette.png", "alpha.png", "dot.png", "absent.png"]
    vectors = ColourAndShape().encode([tmp_path / name for name in names])
    readable = np.isfinite(vectors).all(1)
    assert dict(zip(names, readable.tolist(), strict=True)) == {n: n not in ("cut.jpg", "absent.png") for n in names}


def test_colour_and_shape_by_hand(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", 255, 0, 0)
    halves = Image.new("RGB", (64, 64), (255, 0, 0))
    halves.paste((0, 0, 255), (0, 0, 64, 16))  # blue above: a quarter
    halves.save(tmp_path / "halves.png")
    red, two = ColourAndShape().encode([tmp_path / "red.png", tmp_path / "halves.png"])
    assert red.shape == (452,) and red.dtype == np.float32
    full = 0 * 16 + 3 * 4 + 3  # hue 0, full saturation and value
    assert red[full] == 1 and np.count_nonzero(red) == 1  # one colour, and no edge at all
    blue = (170 // 32) * 16 + 3 * 4 + 3  # hue 240 degrees is 170 of 255
    np.testing.assert_allclose(two[[full, blue]], [0.75**0.5, 0.5], atol=1e-6)
    shape = two[COLOURS:]
    np.testing.assert_allclose(np.linalg.norm(shape), 1, atol=1e-5)
    # the only edge is horizontal, between the first and the second row of cells: the last blocks see nothing, and
    # all of it stands in one of the nine directions
    by_direction = shape.reshape(3, 3, 4, 9)
    assert not by_direction[2].any() and by_direction[0].any()
    assert (by_direction.any((0, 1, 2))).sum() == 1
    turned = ColourAndShape().describe(halves.rotate(90))
    directions = turned[COLOURS:].reshape(3, 3, 4, 9).any((0, 1, 2))
    assert directions.sum() == 1 and not (directions & by_direction.any((0, 1, 2))).any()


@pytest.mark.parametrize(
    ("name", "grey"),
    [
        ("16_bits.png", np.array([[0, 257 * 40, 257 * 200, 65535]], np.uint16)),
        ("32_bits.tif", np.array([[0, 257 * 40, 257 * 200, 65535]], np.int32)),
        ("fractions.tif", np.array([[0, 40 / 255, 200 / 255, 1]], np.float32)),
        ("floats.tif", np.array([[0, 40, 200, 255]], np.float32)),
    ],
)
def test_more_than_8_bits_keep_their_greys(tmp_path: Path, name: str, grey: np.ndarray) -> None:
    Image.fromarray(grey).save(tmp_path / name)
    picture = read_picture(tmp_path / name)
    assert picture is not None and picture.mode == "RGB"
    assert np.asarray(picture).tolist() == [[[value] * 3 for value in (0, 40, 200, 255)]]


def test_posters(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "posters" / "ml-1m"
    if not folder.is_dir():
        pytest.skip(f"no posters in {folder}")
    paths = sorted(folder.glob("*.jpg"))[:60]
    vectors = ColourAndShape().encode(paths)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :COLOURS], axis=1), 1, atol=1e-4)
    assert len(np.unique(vectors.round(4), axis=0)) == len(paths)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights, both halves, as the hub's checkpoints are."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    tower = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 50},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_clip_gives_its_projected_image_vectors(clip: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, CLIPModel

    paths = []
    for i, size in enumerate([(40, 60), (32, 32), (90, 33), (50, 50), (34, 80)]):
        pixels = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    (tmp_path / "damaged.png").write_bytes(b"no")
    encoder = TransformersImageEncoder(str(clip), batch_size=2, precision="float32", device="cpu")
    vectors = encoder.encode([*paths[:2], tmp_path / "damaged.png", *paths[2:]])
    assert vectors.shape == (6, 16) and encoder.dim == 16
    assert np.isnan(vectors[2]).all()
    pictures = [Image.open(path) for path in paths]
    # Pillow's, as torchvision's own resizing gives pixels that differ by a few 255ths
    inputs = AutoImageProcessor.from_pretrained(clip, backend="pil")(pictures, return_tensors="pt")
    with torch.no_grad():
        model = CLIPModel.from_pretrained(clip).eval()
        pooled = model.vision_model(pixel_values=inputs["pixel_values"]).pooler_output
        reference = model.visual_projection(pooled).numpy()
    np.testing.assert_allclose(np.delete(vectors, 2, 0), reference, atol=1e-5)
    half = TransformersImageEncoder(str(clip), precision="bfloat16", device="cpu")
    assert half.fingerprint != encoder.fingerprint
    rough = half.encode(paths)
    cosine = (rough * reference).sum(1) / np.linalg.norm(rough, axis=1) / np.linalg.norm(reference, axis=1)
    assert rough.dtype == np.float32 and cosine.min() > 0.99
    same = TransformersImageEncoder(str(clip), batch_size=7, precision="float32", device="cpu")
    assert same.fingerprint == encoder.fingerprint


def test_resnet_of_transformers_is_pooled(tmp_path: Path) -> None:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], num_channels=3)
    ResNetModel(config).save_pretrained(tmp_path / "model")
    ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875).save_pretrained(tmp_path / "model")
    paint(tmp_path / "a.png", 200, 10, 60, size=(70, 90))
    encoder = TransformersImageEncoder(str(tmp_path / "model"), precision="float32", device="cpu")
    vectors = encoder.encode([tmp_path / "a.png"])
    assert vectors.shape == (1, 12) == (1, encoder.dim)
    from PIL import Image as Pillow

    pixels = torch.from_numpy(encoder.pixels(Pillow.open(tmp_path / "a.png")))[None]
    with torch.no_grad():
        hidden = encoder.network(pixels).last_hidden_state
    np.testing.assert_allclose(vectors, hidden.mean((2, 3)).numpy(), atol=1e-6)


def test_models_that_are_refused(clip: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    paint(tmp_path / "a.png", 1, 2, 3)
    shutil.copytree(clip, tmp_path / "lacking")
    weights = load_file(clip / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "lacking" / "model.safetensors", {"format": "pt"})
    shutil.copytree(clip, tmp_path / "nan")
    weights = load_file(clip / "model.safetensors")
    weights["visual_projection.weight"].fill_(float("nan"))
    save_file(weights, tmp_path / "nan" / "model.safetensors", {"format": "pt"})
    cases = {
        str(tmp_path / "lacking"): "lacks 1 weights of its network, e.g. visual_projection",
        str(tmp_path / "nan"): "not finite",
        str(tmp_path / "no folder"): "no model folder",
    }
    for model, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            TransformersImageEncoder(model, device="cpu", precision="float32").encode([tmp_path / "a.png"])
        assert "\n" not in str(caught.value)


def test_resnet50_without_a_torchvision_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in sys.modules makes the import fail, as where it is not installed; the RuntimeError is what it raises
    beside a torch of another build.
    """
    paint(tmp_path / "a.png", 1, 2, 3)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match=r"ResNet50 needs a torchvision that fits torch .*\[torchvision\]") as caught:
        ResNet50(device="cpu").encode([tmp_path / "a.png"])
    assert "\n" not in str(caught.value)
    broken = tmp_path / "packages" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    with pytest.raises(InputError, match="nms does not exist") as caught:
        ResNet50(device="cpu").encode([tmp_path / "a.png"])
    assert "\n" not in str(caught.value)


def test_resnet50_prepares_pictures(tmp_path: Path) -> None:
    encoder = ResNet50()
    wide = Image.new("RGB", (600, 232), (255, 0, 0))
    wide.paste((0, 255, 51), (188, 4, 412, 228))  # just the middle 224 x 224
    pixels = encoder.pixels(wide)
    assert pixels.shape == (3, 224, 224) and pixels.dtype == np.float32
    expected = (np.array([0, 1, 0.2]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels.reshape(3, -1), np.broadcast_to(expected[:, None], (3, 224 * 224)), atol=1e-5)
    for size in ((1, 1), (5, 900), (233, 232), (128, 192)):
        assert encoder.pixels(Image.new("RGB", size)).shape == (3, 224, 224)


def test_resnet50_is_torchvisions(tmp_path: Path) -> None:
    """Pictures are prepared as torchvision's weights ask for, and vectors are what its classifier would be given."""
    try:
        from torchvision.models import ResNet50_Weights, resnet50
        from torchvision.models.feature_extraction import create_feature_extractor
    except Exception as error:  # an ImportError, or what torchvision raises beside a torch of another build
        pytest.skip(f"needs a torchvision that fits torch ({str(error).splitlines()[0]})")
    torch.manual_seed(3)
    reference = resnet50(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    rng = np.random.default_rng(0)
    for name, size in {"wide": (300, 400), "tall": (500, 260), "small": (90, 60)}.items():
        smooth = Image.fromarray(rng.integers(0, 256, (size[0] // 20, size[1] // 20, 3), np.uint8))
        smooth.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    paths = sorted(tmp_path.glob("*.png"))
    encoder = ResNet50(str(tmp_path / "weights.pth"), device="cpu", precision="float32")
    prepare = ResNet50_Weights.IMAGENET1K_V2.transforms()
    theirs = torch.stack([prepare(Image.open(path)) for path in paths])
    ours = torch.from_numpy(np.stack([encoder.pixels(Image.open(path)) for path in paths]))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    with torch.no_grad():
        pooled = create_feature_extractor(reference, ["avgpool"])(theirs)["avgpool"].flatten(1)
    torch.testing.assert_close(torch.from_numpy(encoder.encode(paths)), pooled, atol=1e-4, rtol=1e-4)


def test_resnet50_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """How weights are chosen, with a stand-in of torchvision's interface, which may not be there."""

    class StandIn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 2048, 1)
            self.fc = torch.nn.Linear(2048, 1000)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv1(x).mean((2, 3)))

    def resnet50(weights: object) -> StandIn:
        if weights is not None:
            raise OSError("<urlopen error no network>\nmore")
        return StandIn()

    models = types.SimpleNamespace(resnet50=resnet50, ResNet50_Weights={"IMAGENET1K_V2": "V2"})
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    paint(tmp_path / "a.png", 30, 60, 90)
    with caplog.at_level(logging.WARNING):
        random = ResNet50("random", device="cpu", precision="float32")
    assert "random weights" in caplog.text and "random-0" in random.fingerprint
    assert "know nothing" in ItemImages("posters", random).caveat and not ItemImages("posters").caveat
    vectors = random.encode([tmp_path / "a.png"])
    assert vectors.shape == (1, 2048)
    other = ResNet50("random", device="cpu", precision="float32", seed=1)
    assert other.fingerprint != random.fingerprint
    assert not np.allclose(other.encode([tmp_path / "a.png"]), vectors)
    state = random.network.state_dict()  # without its classifier, as a fine-tuned backbone may be
    torch.save(state, tmp_path / "weights.pth")
    loaded = ResNet50(str(tmp_path / "weights.pth"), device="cpu", precision="float32")
    np.testing.assert_array_equal(loaded.encode([tmp_path / "a.png"]), vectors)
    assert "random" not in loaded.fingerprint and loaded.fingerprint != ResNet50().fingerprint
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    for weights, message in {"other.pth": "cannot be loaded", "broken.pth": "cannot be loaded"}.items():
        with pytest.raises(InputError, match=message) as caught:
            ResNet50(str(tmp_path / weights), device="cpu").encode([tmp_path / "a.png"])
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no network"):
        ResNet50(device="cpu").encode([tmp_path / "a.png"])
    with pytest.raises(InputError, match="no such file"):
        ResNet50("nowhere.pth")
