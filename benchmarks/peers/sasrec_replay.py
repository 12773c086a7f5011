"""RePlay's SasRec: fit by Lightning, then predict, mask what was seen, and take the first ten."""

import warnings

warnings.filterwarnings("ignore")

import lightning as L  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from common import arguments, emit, quarters, seconds  # noqa: E402
from peers.clock import batch_clock  # noqa: E402
from peers.sequences import histories, load, ndcg_at_10  # noqa: E402
from replay.data import FeatureHint, FeatureType  # noqa: E402
from replay.data.nn import TensorFeatureInfo, TensorSchema  # noqa: E402
from replay.data.nn.sequential_dataset import PandasSequentialDataset  # noqa: E402
from replay.models.nn.optimizer_utils import FatOptimizerFactory  # noqa: E402
from replay.models.nn.sequential.sasrec import SasRec, SasRecPredictionDataset, SasRecTrainingDataset  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

LENGTH, BATCH = 200, 128


def main():
    given = arguments(__doc__, epochs=1)
    data, clock = load(given.work), batch_clock(L.Callback)
    items = int(data["item"].max())
    item = TensorFeatureInfo(
        "item_id", FeatureType.CATEGORICAL, is_seq=True, feature_hint=FeatureHint.ITEM_ID, cardinality=items,
        padding_value=items, embedding_dim=64,
    )  # fmt: skip
    schema = TensorSchema(item)

    def sequences(parts):  # its ids count from 0, the padding is the last
        past = histories(data, parts)
        frame = pd.DataFrame({"user_id": list(past), "item_id": [items - 1 for items in past.values()]})
        return PandasSequentialDataset(schema, "user_id", "item_id", frame), past

    train, known, targets = sequences([0])[0], sequences([0, 1]), histories(data, [2])
    torch.manual_seed(0)
    model = SasRec(
        schema, block_count=2, head_count=1, hidden_size=64, max_seq_len=LENGTH, dropout_rate=0.1, loss_type="CE",
        optimizer_factory=FatOptimizerFactory(learning_rate=1e-3),
    )  # fmt: skip
    trainer = L.Trainer(
        max_epochs=given.epochs, accelerator="cpu", logger=False, callbacks=[clock], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(SasRecTrainingDataset(train, LENGTH), BATCH, shuffle=True))
    users = np.array(list(known[1]))
    loader, lists = DataLoader(SasRecPredictionDataset(known[0], LENGTH), BATCH), []
    model.eval()

    @torch.no_grad()
    def rank():
        lists.clear()
        for step, batch in enumerate(loader):
            scores = model.predict_step(batch, step)
            for row, user in enumerate(users[step * BATCH : step * BATCH + BATCH]):
                scores[row, torch.from_numpy(known[1][user] - 1).long()] = -torch.inf
            lists.append(scores.topk(10).indices + 1)

    ranking = seconds(rank, 5)
    quality = ndcg_at_10(torch.cat(lists).numpy(), np.array([targets[u][0] for u in users]))
    emit(
        "RePlay",
        {"training, an epoch": quarters(clock.taken[-1]), "full ranking of all users": ranking},
        ("replay-rec", "torch", "lightning"),
        quality={f"NDCG@10 after {given.epochs} epochs": round(quality, 4)},
        note="float32, lr .001, 128 users a batch, the Lightning module of its example with its map-style dataset",
    )


if __name__ == "__main__":
    main()
