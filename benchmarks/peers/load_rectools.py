"""RecTools: pandas, its Dataset, and the first batch of its SASRec data preparator."""

import warnings

warnings.filterwarnings("ignore")

import pandas as pd  # noqa: E402
from common import arguments, emit, seconds  # noqa: E402
from rectools import Columns  # noqa: E402
from rectools.dataset import Dataset  # noqa: E402
from rectools.models.nn.transformers.sasrec import SASRecDataPreparator  # noqa: E402

NAMES = [Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]


def first_batch(path, separator):
    columns = [NAMES[k // 2] if k % 2 == 0 else f"_{k}" for k in range(7)] if separator == ":" else NAMES
    frame = pd.read_csv(path, sep=separator, header=None if separator == ":" else 0, names=columns, usecols=NAMES)
    frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="s")
    preparator = SASRecDataPreparator(
        session_max_len=200, batch_size=128, dataloader_num_workers=0, shuffle_train=True,
        train_min_user_interactions=2, get_val_mask_func=None, negative_sampler=None, n_negatives=None,
    )  # fmt: skip
    preparator.process_dataset_train(Dataset.construct(frame))
    return next(iter(preparator.get_dataloader_train()))


def main():
    given = arguments(__doc__)
    measures = {"ML-1M": seconds(lambda: first_batch(given.root / "ml-1m" / "ratings.dat", ":"), 2)}
    emit("RecTools", measures, ("rectools", "pandas"), note="its own minimum count of users instead of a 5-core")


if __name__ == "__main__":
    main()
