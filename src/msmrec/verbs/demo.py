"""The main job on the embedded default: a generated dataset whose truth is known.

Users of `Simulated` choose films by a few modalities each. SASRec and MSMRec are trained on their choices; then the
gate's weights are held against the planted ones.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from msmrec.analysis.gate import gated, read_gate
from msmrec.analysis.people import weight_table
from msmrec.analysis.planted import rank_correlations, within_user_correlation
from msmrec.cli import build, train
from msmrec.data.sources.simulated import Simulated
from msmrec.finished_run import open_run


def main(args: Sequence[str] = ()) -> dict[str, float]:
    """Trains, prints both rows and the correlations by modality.

    Args:
        args: overrides for both trainings.

    Returns:
        The correlations; nothing in the other processes of a training by several.
    """
    os.environ.setdefault("WANDB_QUIET", "true")  # its summaries of each run would bury the two rows
    data = build(["--config", "demo_msmrec.yaml", *args], save=False).datamodule
    data.source.folder(data.root)  # its texts are read from the raw files, also where the dataset is prepared already
    folders = {name: Path("runs") / name for name in ("demo_sasrec", "demo_msmrec")}
    # Under --trainer.devices 2 Lightning starts this command again, as a process that trains along and does no more.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    for folder in folders.values() if first else ():
        shutil.rmtree(folder, ignore_errors=True)  # a demo shows itself afresh each time
    for name, folder in folders.items():
        train(["--config", f"{name}.yaml", "--run_dir", str(folder), *args])
    if not first:
        return {}
    rows = {name: json.loads((folder / "metrics.json").read_text()) for name, folder in folders.items()}
    opened = open_run(Path("runs") / "demo_msmrec")
    dataset = opened.data.dataset
    assert isinstance(opened.data.source, Simulated)
    planted = opened.data.source.truth(opened.data.root)
    names = ["hit_rate@10", "ndcg@10", "mrr@10", "hit_rate@100"]
    print(f"\n{'':14}" + "".join(f"{name:>14}" for name in names) + f"{'s/epoch':>10}{'epochs':>8}")
    for name, row in rows.items():
        values = "".join(f"{row['test'][metric]:14.4f}" for metric in names)
        print(f"{name:14}{values}{row['train']['seconds_per_epoch']:10.2f}{row['train']['epochs']:8d}")
    learned = weight_table(read_gate(gated(opened), dataset), dataset)
    result = rank_correlations(learned, planted)
    print("\nDoes the gate find what was planted? Spearman correlation over users of learned and planted weights:")
    for name, value in result.items():
        print(f"  {name:12}{value:7.3f}")
    print(f"  {'mean':12}{sum(result.values()) / len(result):7.3f}")
    print(f"  and over modalities inside a user, on average {within_user_correlation(learned, planted):.3f}")
    return result
