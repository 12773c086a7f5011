"""Item vectors for retrieval: eq. 7, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from msmrec.artifacts import InputError
from msmrec.data.datamodule import RecDataModule
from msmrec.data.prepare import Dataset
from msmrec.item_vectors import standardised
from msmrec.retrieval.vectors import ItemVectors
from msmrec.text.encoder import TfidfSvdEncoder
from msmrec.text.item_text import ItemText
from msmrec.text.modalities import Modality


@pytest.fixture
def data(tiny_clicks: Dataset, tiny_root: Path, cache: Path, tmp_path: Path) -> Any:
    generator = np.random.default_rng(0)
    for name, dim in (("graph", 5), ("aligned", 3)):
        vectors = generator.standard_normal((tiny_clicks.num_items + 1, dim)).astype(np.float32)
        vectors[[0, 7]] = 0
        (tmp_path / name).mkdir()
        save_file({"item_embeddings": vectors}, tmp_path / name / "item_embeddings.safetensors")
    runs = {"graph": tmp_path / "graph", "aligned": tmp_path / "aligned"}
    made = SimpleNamespace(
        dataset=tiny_clicks, num_items=tiny_clicks.num_items, root=tiny_root, cache=cache, upstream=runs
    )
    made.run = lambda name: RecDataModule.run(made, name)  # type: ignore[arg-type]
    return made


def text(root: Path) -> ItemText:
    knowledge = str(next(root.glob("simulated*/knowledge.jsonl")))
    schema = [Modality(name, prose=[name]) for name in ("narrative", "visual", "set")]
    return ItemText([knowledge], schema, encoder=TfidfSvdEncoder(), dim=4)


def test_parts_have_equal_say(data: Any, tiny_root: Path) -> None:
    (joined,) = ItemVectors(["text", "collaborative", "aligned"], text(tiny_root), "graph", "aligned").spaces(data)
    assert joined.shape == (data.num_items + 1, 8 + 5 + 3)
    for part in (joined[1:, :8], joined[1:, 8:13], joined[1:, 13:]):
        length = np.linalg.norm(part, axis=1)
        assert np.allclose(length[length > 0], 3**-0.5, atol=1e-5)
    assert not joined[0].any() and not joined[7, 8:].any() and joined[7, :8].any()  # 7 has text alone
    apart = ItemVectors(["collaborative", "aligned"], None, "graph", "aligned", separate=True).spaces(data)
    assert [space.shape[1] for space in apart] == [5, 3]
    moved = ItemVectors(["aligned"], None, "graph", "aligned").spaces(data, np.ones((data.num_items + 1, 2), "f4"))
    assert moved[0].shape[1] == 2  # vectors of a projector that is being trained come first


def test_what_is_missing_is_named(data: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not under needs"):
        ItemVectors(["collaborative"], None, "elsewhere").spaces(data)
    with pytest.raises(InputError, match="says not where texts come from"):
        ItemVectors(["text"])
    with pytest.raises(InputError, match="each once"):
        ItemVectors([])
    (tmp_path / "graph" / "item_embeddings.safetensors").unlink()
    with pytest.raises(InputError, match="no item vectors"):
        ItemVectors(["collaborative"], None, "graph").spaces(data)


def test_columns_brought_to_one_scale_leave_items_without_a_vector_at_zero() -> None:
    vectors = np.array([[0, 0], [1, 10], [3, 10], [0, 0]], np.float32)
    np.testing.assert_allclose(standardised(vectors), [[0, 0], [-1, 0], [1, 0], [0, 0]])
    assert not standardised(np.zeros((3, 2), np.float32)).any()
