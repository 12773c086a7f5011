"""What the README says of loading and evaluation, measured.

    python benchmarks/foundation.py --data.root DIR     (with ml-1m/ in it)

Prints seconds from ML-1M's raw files to the first batch (nothing prepared before, imports apart), the share of a
training epoch that making batches takes, and the seconds of one full-ranking evaluation of all 6,040 users.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from msmrec.cli import build
from msmrec.columns import TEST
from msmrec.data.batches import EvalLoader, TrainLoader
from msmrec.data.prepare import prepare
from msmrec.metrics.ranking import ranking_metrics, target_ranks


def main() -> None:
    cli = build(["--config", "sasrec_ml1m.yaml", "--trainer.logger", "false", *sys.argv[1:]], save=False)
    data, model, device = cli.datamodule, cli.model, torch.device("cpu")
    with tempfile.TemporaryDirectory() as cache:
        begin = time.perf_counter()
        dataset = prepare(data.source, data.root, Path(cache), data.protocol)
        loader = TrainLoader(dataset, data.max_seq_len, data.tokens_per_batch, device)
        loader.set_epoch(0)
        first = next(iter(loader))
        print(f"raw files to first batch: {time.perf_counter() - begin:.2f} s, {tuple(first.item_seq.shape)}")
        begin = time.perf_counter()
        positions = sum(batch.item_seq.numel() for batch in loader)
        making = time.perf_counter() - begin
        real = int(loader.length.sum())
        print(f"batches of an epoch: {making:.2f} s, {len(loader)} batches, {1 - real / positions:.1%} padding")
        model.log = lambda *args, **kwargs: None
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        begin = time.perf_counter()
        for step, batch in enumerate(loader):
            loss = model.training_step(batch, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epoch = time.perf_counter() - begin
        print(f"training epoch: {epoch:.1f} s on {torch.get_num_threads()} threads, batches {making / epoch:.1%} of it")
        model.eval()
        begin = time.perf_counter()
        with torch.no_grad():
            for batch in EvalLoader(dataset, TEST, data.max_seq_len, data.eval_batch_size, device):
                scores = model.scores(batch).float()
                scores[batch.seen_row, batch.seen_item] = -torch.inf
                counts = (batch.target_item > 0).sum(1)
                ranking_metrics(target_ranks(scores, batch.target_item), counts, model.cutoffs)
        print(f"full ranking of {dataset.num_users:,} users: {time.perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    main()
