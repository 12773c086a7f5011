"""pandas and a DataLoader, as a careful user would write it: C parser, groupby, padded sequences, leave-one-out."""

import numpy as np
import pandas as pd
import torch
from common import arguments, emit, seconds
from torch.utils.data import DataLoader, Dataset

LENGTH = 200


class Sequences(Dataset):
    def __init__(self, histories):
        self.histories = histories

    def __len__(self):
        return len(self.histories)

    def __getitem__(self, k):
        items = self.histories[k][-LENGTH - 3 : -2]
        out = np.zeros(LENGTH + 1, np.int64)
        out[LENGTH + 1 - len(items) :] = items
        return torch.from_numpy(out[:-1]), torch.from_numpy(out[1:])


def first_batch(path, separator, header):
    columns = ["u", "", "i", "", "r", "", "t"] if separator == ":" else ["u", "i", "r", "t"]
    names = range(len(columns)) if header is None else None
    frame = pd.read_csv(path, sep=separator, header=header, engine="c", names=names,
                        usecols=[k for k, c in enumerate(columns) if c])  # fmt: skip
    frame.columns = ["u", "i", "r", "t"]
    while True:  # 5-core
        enough = (frame.groupby("u")["i"].transform("size") >= 5) & (frame.groupby("i")["u"].transform("size") >= 5)
        if enough.all():
            break
        frame = frame[enough]
    frame = frame.sort_values(["u", "t"], kind="stable")
    frame["i"] = pd.factorize(frame["i"])[0] + 1
    borders = np.flatnonzero(np.diff(frame["u"].to_numpy())) + 1
    return next(iter(DataLoader(Sequences(np.split(frame["i"].to_numpy(), borders)), 128, shuffle=True)))


def main():
    given = arguments(__doc__)
    measures = {"ML-1M": seconds(lambda: first_batch(given.root / "ml-1m" / "ratings.dat", ":", None), 3)}
    generated = given.work / "ml-25m"
    rows = int(next(generated.glob("rows=*")).name[5:])
    name = f"{rows:,} generated ratings"
    measures[name] = seconds(lambda: first_batch(generated / "ratings.csv", ",", 0), 1, 0)
    measures |= {f"{what}, a second time": taken for what, taken in measures.items()}
    emit(
        "plain pandas",
        measures,
        ("pandas", "torch"),
        note="keeps nothing on disk, so a second time is as the first; checks nothing",
    )


if __name__ == "__main__":
    main()
