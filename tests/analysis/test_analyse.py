"""The whole analysis of a run that was trained, removal against brute force, and what mistakes say."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.tiny_configs import TINY_DATA, tiny_text

from msmrec.analysis import removal
from msmrec.analysis.analyse import analyse, read_analysis
from msmrec.analysis.gate import gated, read_gate
from msmrec.artifacts import InputError
from msmrec.cli import train
from msmrec.columns import TEST
from msmrec.command import main as guarded
from msmrec.finished_run import open_run
from msmrec.run_folder import OpenRun
from msmrec.verbs import analyse as analyse_verb


@pytest.fixture(scope="module")
def runs(tiny_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/msmrec and runs/sasrec on the tiny world."""
    folder = tmp_path_factory.mktemp("runs")
    where = ["--data.root", str(tiny_root), "--data.cache", str(cache), "--trainer.max_epochs=2"]
    text = f"--model.init_args.text={json.dumps(tiny_text(tiny_root))}"
    for name, extra in (("msmrec", [text]), ("sasrec", [])):
        train(["--config", f"{name}_ml100k.yaml", *TINY_DATA, *where, *extra, "--run_dir", str(folder / name)])
    return folder


@pytest.fixture(scope="module")
def run(runs: Path) -> OpenRun:
    return open_run(runs / "msmrec")


def test_the_verb_writes_tables_that_are_read_back(
    runs: Path, run: OpenRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_analysis(runs / "msmrec") is None
    analyse_verb.main([str(runs / "msmrec"), "--maps", "tsne", "--map_items", "20", "--resamples", "200"])
    printed = capsys.readouterr().out
    assert "| all texts | ndcg@10 |" in printed and "What was planted" in printed
    made = read_analysis(runs / "msmrec")
    assert made is not None
    names = ["narrative", "visual", "set"]
    assert made.users.columns == ["user_id", "raw_user_id", "group", "popular_share", "num_items", "entropy", *names]
    np.testing.assert_allclose(made.users.select(names).sum_horizontal(), 1, rtol=1e-5)
    assert len(made.users) == 120 and made.users["entropy"].is_between(0, 1).all()
    assert made.groups.group_by("group").agg(pl.col("users").first())["users"].sum() == 120
    assert len(made.positions) == 60 and len(made.drift) == 3 and len(made.devoted) == 15
    assert (made.positions["low"] <= made.positions["mean"]).all()
    assert set(made.map_points["method"]) == {"tsne"} and set(made.map_points["stage"]) == {"before", "after"}
    full = dict(made.removal.select("metric", "full").unique().iter_rows())
    for metric in removal.METRICS:  # the same numbers as the run's test
        assert full[metric] == pytest.approx(run.record["test"][metric], abs=1e-6)
    (runs / "msmrec" / "analysis" / "drift.parquet").unlink()
    with pytest.raises(InputError, match=r"drift.parquet: missing or broken"):
        read_analysis(runs / "msmrec")
    shutil.rmtree(runs / "msmrec" / "analysis")


def test_removal_equals_a_model_that_never_had_the_text(run: OpenRun) -> None:
    """Brute force: the softmax of each gate by hand without the modality, user by user."""
    model = gated(run)
    gate = read_gate(model, run.data.dataset)
    table = removal.removals(run, model, gate)
    assert table.numerator.shape == (120, 5 * 2)
    hidden, kept = 1, [0, 2]
    batch = next(iter(model.eval_loader(run.data, TEST)))
    with torch.inference_mode(), removal.without(model, [hidden]):
        scores = model.scores(batch)
    with torch.inference_mode():
        ids, experts, present = model._ids(), model._experts(), model.present
        for row in range(0, len(batch.user_id), 29):
            seq = batch.item_seq[row, : batch.seq_len[row]]
            logits, profiles = [], torch.stack([ids[seq[: t + 1]].mean(0) for t in range(len(seq))])
            for t in range(len(seq)):
                logits.append(model.gate.scores(profiles[t][None], experts[seq[t]]))
            logit, there = torch.stack(logits), present[seq]

            def soft(values: torch.Tensor, has: torch.Tensor) -> torch.Tensor:
                weights = torch.zeros(3)
                chosen = [k for k in kept if has[k]]
                if chosen:
                    weights[chosen] = torch.softmax(values[chosen], 0)
                return weights

            of_items = torch.stack([soft(logit[t], there[t]) for t in range(len(seq))])
            fused = ids[seq] + (of_items[..., None] * experts[seq]).flatten(1) @ model.fuse_item
            state = model._scaled(model.transformer(fused[None], torch.tensor([len(seq)]))[0, -1])
            mean = (logit * there).sum(0) / there.sum(0).clamp(min=1)
            asked = (state @ model.fuse_score).view(3, -1) * soft(mean, there.any(0))[:, None]
            prior = torch.stack([soft(model.gate.bias, has) for has in present])
            keys = ids + (prior[..., None] * experts).flatten(1) @ model.fuse_item
            if model.temperature is not None:
                keys = torch.nn.functional.normalize(keys, dim=-1)
            expected = keys @ state + experts.flatten(1) @ asked.flatten()
            torch.testing.assert_close(scores[row], expected, rtol=1e-4, atol=1e-4)
    assert model.present.equal(present) and bool(model.present[:, hidden].any())  # back as it was


def test_without_all_texts_the_texts_do_not_matter(run: OpenRun) -> None:
    model = gated(run)
    batch = next(iter(model.eval_loader(run.data, TEST)))
    with torch.inference_mode(), removal.without(model, range(3)):
        first = model.scores(batch)
        before = model.vectors.clone()
        model.vectors.normal_()
        second = model.scores(batch)
        model.vectors.copy_(before)
    torch.testing.assert_close(first, second)


def test_mistakes_are_one_line(runs: Path, run: OpenRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit) as status:
        guarded(lambda: analyse_verb.main([str(runs / "sasrec")]))
    said = capsys.readouterr().err
    assert status.value.code == 2 and said.count("msmrec: ") == 1
    assert said.endswith("SASRec has no modality gate to analyse; name a run of MSMRec\n")
    gone = shutil.copytree(runs / "msmrec", tmp_path / "gone")
    (gone / "checkpoints" / "best.ckpt").unlink()
    short = shutil.copytree(runs / "msmrec", tmp_path / "short")
    (short / "checkpoints" / "best.ckpt").write_bytes((short / "checkpoints" / "best.ckpt").read_bytes()[:5000])
    for folder, why in ((gone, "best.ckpt: not found"), (short, "not a readable checkpoint"), (tmp_path, "no config")):
        with pytest.raises(InputError, match=why) as error:
            analyse_verb.main([str(folder)])
        assert "\n" not in str(error.value)
    for option, why in (
        ("--maps=pca", "no such map"),
        ("--resamples=5", "at least 100"),
        ("--neighbours=0", "at least 1"),
    ):
        with pytest.raises(InputError, match=why):
            analyse_verb.main([str(runs / "msmrec"), option])
    with pytest.raises(InputError, match="no item is popular"):
        analyse(run, popular_above=0.9)
    assert not (runs / "msmrec" / "analysis").exists()  # nothing half done
