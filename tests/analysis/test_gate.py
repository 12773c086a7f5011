"""What the gate is asked: flat arrays against one user at a time, and hindsight against a loop over the formula."""

import numpy as np
import pytest
import torch
from tests.models.test_sequence_models import msmrec

from msmrec.analysis.gate import over_ranges, read_gate
from msmrec.data.prepare import Dataset

OPTIONS = [{}, {"profile": "modality"}, {"profile": "modality", "compatibility": "mlp"}, {"compatibility": "inner"}]


@pytest.mark.parametrize("options", OPTIONS)
def test_hindsight_asks_each_item_with_the_mean_of_the_others(options: dict[str, str]) -> None:
    model = msmrec(**options)
    items = [7, 5, 12, 3, 7]
    padded = torch.tensor([[*items, 0, 0], [9, 8, 7, 6, 4, 2, 1]])
    scores = model.hindsight_scores(padded, torch.tensor([5, 7]))[0]
    ids, experts = model._ids(), model._experts()
    for t, item in enumerate(items):
        others = [other for s, other in enumerate(items) if s != t]
        for k in range(3):
            if not model.present[item, k]:
                continue
            if model.gate.profile == "id":
                profile = ids[others].mean(0).expand(3, -1)
            else:
                shown = [other for other in others if model.present[other, k]]
                profile = (experts[shown].sum(0) / max(len(shown), 1)) if shown else torch.zeros(3, 16)
            expected = model.gate.scores(profile, experts[item])[k]
            torch.testing.assert_close(scores[t, k], expected)


def test_flat_weights_are_each_users_own(tiny: Dataset) -> None:
    model = msmrec(tiny.num_items)
    gate = read_gate(model, tiny)
    assert np.array_equal(gate.user_id, np.arange(1, tiny.num_users + 1))
    with torch.inference_mode():
        for user in (0, 17, tiny.num_users - 1):
            places = slice(gate.offsets[user], gate.offsets[user + 1])
            seq = torch.from_numpy(gate.item_id[places]).long()[None]
            assert (
                np.array_equal(seq[0], tiny.item_id[gate.rows[places]])
                and (tiny.user_id[gate.rows[places]] == user + 1).all()
            )
            of_items, after = model.gate_weights(seq, torch.tensor([seq.shape[1]]))
            np.testing.assert_allclose(gate.items[places], of_items[0], atol=1e-5)
            np.testing.assert_allclose(gate.after[places], after[0], atol=1e-5)
            latest = seq[:, -model.max_seq_len :]
            _, end = model.gate_weights(latest, torch.tensor([latest.shape[1]]))
            np.testing.assert_allclose(gate.users[user], end[0, -1], atol=1e-5)
            scores = model.hindsight_scores(seq, torch.tensor([seq.shape[1]]))[0]
            cut = seq.shape[1] // 2
            for part, found in (
                (slice(None), gate.whole),
                (slice(0, cut), gate.halves[0]),
                (slice(cut, None), gate.halves[1]),
            ):
                there = model.present[seq[0, part]]
                mean = (scores[part] * there).sum(0) / there.sum(0).clamp(min=1)
                expected = torch.softmax(mean.masked_fill(~there.any(0), -torch.inf), 0)
                np.testing.assert_allclose(found[user], expected, atol=1e-5)
    assert gate.lengths.max() > model.max_seq_len  # so that both lengths were tried


def test_ranges_may_overlap_and_stand_in_any_order(tiny: Dataset) -> None:
    model = msmrec(tiny.num_items)
    start, end = np.array([5, 0, 2]), np.array([9, 3, 9])
    (found,) = over_ranges(model, lambda seq, length: (seq[..., None].float(),), tiny.item_id, start, end)
    assert found[:, 0].tolist() == [*tiny.item_id[5:9], *tiny.item_id[0:3], *tiny.item_id[2:9]]
