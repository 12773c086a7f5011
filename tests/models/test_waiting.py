"""A training step asks the device for nothing: no shape, no number, so the host runs ahead of a GPU.

Seen on the CPU by the operations whose result has a size or a value that only the device knows.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.test_sequence_models import tiny_text
from torch.utils._python_dispatch import TorchDispatchMode

from msmrec.data.batches import TrainLoader
from msmrec.data.edges import EdgeLoader
from msmrec.data.prepare import Dataset
from msmrec.data.samples import SampleLoader
from msmrec.models.base import Module
from msmrec.models.din import DIN
from msmrec.models.fields import encode_fields
from msmrec.models.lightgcn import LightGCN
from msmrec.models.msmrec import MSMRec
from msmrec.models.sasrec import SASRec

CPU = torch.device("cpu")
WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Waits(TorchDispatchMode):
    """Keeps the names of the operations that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        waits = bool(WAITING & set(func.tags))
        if name.strip("_").startswith("index") and isinstance(args[1], list | tuple):  # by a mask, but not by indices
            waits = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        if name == "repeat_interleave":
            waits = (kwargs or {}).get("output_size") is None
        if waits:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def waits_of(model: Module, loader: Iterable[Any]) -> list[str]:
    """What waits in the steps after the first batch, before which an epoch is planned on the host."""
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batches = iter(loader)
    next(batches)
    steps = 0
    with Waits() as seen:
        for batch in batches:
            model.training_step(batch, steps).backward()
            steps += 1
    assert steps > 1
    return seen.names


SIZES = {"max_seq_len": 10, "embedding_dim": 8}
SEQUENCES: dict[str, Callable[[int, Path], SASRec]] = {
    "softmax": lambda n, root: SASRec(n, **SIZES),
    "sampled softmax": lambda n, root: SASRec(n, loss="sampled_softmax", num_negatives=7, temperature=0.05, **SIZES),
    "bce": lambda n, root: SASRec(n, loss="bce", **SIZES),
    "gbce": lambda n, root: SASRec(n, loss="gbce", num_negatives=3, **SIZES),
    "msmrec": lambda n, root: MSMRec(
        tiny_text(root), n, modality_dropout=0.2, id_dropout=0.1, text_dropout=0.1, top_k=2, expert_dim=4, **SIZES
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "cold"), [*((kind, 0) for kind in SEQUENCES), ("msmrec", 3)])
def test_steps_over_sequences_wait_for_nothing(kind: str, cold: int, tiny: Dataset, tiny_root: Path) -> None:
    model = SEQUENCES[kind](tiny.num_items, tiny_root)
    if isinstance(model, MSMRec):
        model.set_warm(torch.arange(tiny.num_items) >= cold)
        assert (model.candidates() is None) == (cold == 0)
    assert waits_of(model, TrainLoader(tiny, 10, 200, CPU, all_windows=True)) == []


def test_steps_over_edges_wait_for_nothing(tiny: Dataset) -> None:
    model = LightGCN(tiny.num_users, tiny.num_items, embedding_dim=8)
    loader = EdgeLoader(tiny, 100, CPU)
    model.set_edges(loader.user, loader.item)
    assert waits_of(model, loader) == []


def test_steps_over_clicks_wait_for_nothing(tiny_clicks: Dataset) -> None:
    model = DIN(embedding_dim=4, hidden=(8,))
    model.make(encode_fields(tiny_clicks, 3, None, None))
    assert waits_of(model, SampleLoader(tiny_clicks, 0, 3, 12, 64, CPU, shuffle=True)) == []


def test_what_waits_is_seen() -> None:
    x = torch.arange(4)
    with Waits() as seen:
        x[x > 1], x.nonzero(), int(x.max()), x.repeat_interleave(x), x.unique(), torch.equal(x, x)
        x[x], x.repeat_interleave(x, output_size=6)
    names = ["index", "nonzero", "_local_scalar_dense", "repeat_interleave", "_unique2", "equal"]
    assert sorted(seen.names) == sorted(names)
