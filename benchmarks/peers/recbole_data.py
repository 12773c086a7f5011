"""RecBole on numpy 1 and a current torch: what it needs, and its files from ours."""

import sys
import time

import numpy as np

np.float, np.bool, np.int = float, bool, int  # what it calls by names that numpy 1.24 dropped


def write(work, name, columns):
    """Writes work/name/name.inter. Args: columns, {"user_id:token": array, ...}."""
    (work / name).mkdir(parents=True, exist_ok=True)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    (work / name / f"{name}.inter").write_text("\n".join(lines))


def build(model, name, work, **settings):
    """(config, dataset, loaders of training, validation and test, model), as its quick start makes them."""
    import logging

    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, init_seed

    sys.argv = sys.argv[:1]  # it reads the caller's
    fixed = {"data_path": str(work), "use_gpu": False, "gpu_id": "", "show_progress": False, "state": "ERROR"}
    fixed |= {"checkpoint_dir": str(work / "saved"), "metrics": ["NDCG"], "topk": [10], "valid_metric": "NDCG@10"}
    config = Config(model=model, dataset=name, config_dict={**fixed, **settings})
    logging.disable(logging.WARNING)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    return config, dataset, loaders, get_model(config["model"])(config, loaders[0]._dataset).to(config["device"])


def step_seconds(model, train, count):
    """Seconds of each of the first steps of training, two of warm-up included."""
    import torch

    optimizer, taken = torch.optim.Adam(model.parameters(), 1e-3), []
    begin = time.perf_counter()
    for _, batch in zip(range(count + 2), train, strict=False):
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
        taken.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    return taken
