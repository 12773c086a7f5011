"""Results by user, from which intervals and tests are made."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.evaluation.written_runs import write_run

from msmrec.artifacts import InputError
from msmrec.evaluation.user_results import UserResults
from msmrec.metrics.ctr import ctr_metrics, user_auc
from msmrec.run_folder import find_runs


def test_sums_over_users_give_the_metrics_of_click_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    user, label, prob = np.sort(rng.integers(3, 30, 200)), rng.integers(0, 2, 200), rng.random(200)
    user[0] = 2  # a single sample has no AUC
    own = user_auc(*(torch.from_numpy(column) for column in (prob, label, user)))
    run = write_run(tmp_path / "a", [1, 0])
    pl.DataFrame({name: column.numpy() for name, column in own._asdict().items()}).write_parquet(
        run / "per_user.parquet"
    )
    pl.DataFrame({"user_id": user, "label": label, "prob": prob}).write_parquet(run / "predictions.parquet")
    whole = ctr_metrics(torch.from_numpy(prob), torch.from_numpy(label), own, torch.tensor(0.5))
    results = UserResults(find_runs([run])[0])
    for metric in ("user_auc", "log_loss", "accuracy"):
        numerator, denominator = results.sums(metric)
        assert numerator.sum() / denominator.sum() == pytest.approx(whole[metric]), metric
    for most, possible in ((len(results.users), True), (len(results.users) - 1, False)):
        monkeypatch.setattr("msmrec.evaluation.user_results.MAX_AUC_USERS", most)
        assert results.has("auc") == possible and results.has("log_loss") and not results.has("ece")
    pl.concat([results.table, results.table[:1]]).write_parquet(run / "per_user.parquet")
    with pytest.raises(InputError, match=r"a/per_user\.parquet: a user_id has two rows"):
        UserResults(find_runs([run])[0])
