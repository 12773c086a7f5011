"""The section on the gate at work: users' latest films, what the gate weighed in each, and what was recommended."""

import numpy as np
import polars as pl
import torch

from msmrec.columns import ITEM_ID, SPLIT, TEST, TIER, TITLE, TRAIN, USER_ID, VAL
from msmrec.data.batches import EvalBatch, HistoryLoader
from msmrec.models.base import exact_products
from msmrec.models.msmrec import MSMRec
from msmrec.models.rec_module import unseen_scores
from msmrec.report.figures import cells, number, shorten
from msmrec.report.page import Block, Group, Missing, Prose, Row, Table
from msmrec.report.run_files import RunFiles
from msmrec.run_folder import OpenRun

LATEST = 12  # items of a history that are shown
LIST = 5


def gate_at_work(run: RunFiles, opened: OpenRun | None, why_closed: str) -> list[Block]:
    """Users with few, middling and many popular films; needs the model.

    Args:
        opened: the run's model. why_closed: a sentence for where there is none.
    """
    if not str(run.run.config.get("model.class_path")).endswith("MSMRec"):
        raise Missing("The run's model has no gate over modalities; MSMRec has.")
    if opened is None or not isinstance(opened.model, MSMRec):
        raise Missing(why_closed)
    model, dataset = opened.model, opened.data.dataset
    users = _three_users(run)
    tested = [user for user in users if dataset.ends[TEST][user] > dataset.ends[VAL][user] > dataset.offsets[user]]
    start, end = dataset.offsets[tested], dataset.ends[VAL][tested]
    device = opened.data.place()[0]
    loader = HistoryLoader(dataset.item_id, np.array(tested), start, end, end, model.max_seq_len, 1, device)
    blocks: list[Block] = [
        Prose(
            "Three users, by the share of popular films (tier head) among their training ratings. Each row is a film of"
            " the history, oldest first, and what the gate weighed in it for this user at that moment (eq. 5); the last"
            " row is the user's own weights after the history, which ranking uses."
        )
    ]
    names = model.text.names
    titles = ["", *dataset.items[TITLE].fill_null("").to_list()]
    of_user = {int(batch.user_id): batch for batch in loader}
    return blocks + [_one_user(model, of_user[user], user, users[user], names, titles, run) for user in tested]


def _three_users(run: RunFiles) -> dict[int, str]:
    """user_id -> what is said of it: the users at the 5th, 50th and 95th percentile of popular share."""
    rows = pl.read_parquet(run.dataset.folder / "interactions.parquet", columns=[USER_ID, ITEM_ID, SPLIT])
    rows = rows.filter(pl.col(SPLIT) == TRAIN).join(run.dataset.items.select(ITEM_ID, TIER), on=ITEM_ID)
    share = rows.group_by(USER_ID).agg(popular=(pl.col(TIER) == "head").mean(), many=pl.len())
    share = share.filter(pl.col("many") >= LATEST).sort("popular", USER_ID)
    if len(share) < 3:
        raise Missing(f"Fewer than three users have {LATEST} training ratings.")
    chosen = share.gather([int(q * (len(share) - 1)) for q in (0.05, 0.5, 0.95)]).unique(maintain_order=True)
    return {user: f"{popular:.0%} popular, {many:,} ratings" for user, popular, many in chosen.iter_rows()}


def _one_user(
    model: MSMRec, one: EvalBatch, user: int, what: str, names: list[str], titles: list[str], run: RunFiles
) -> Group:
    with torch.no_grad(), exact_products():
        item_gate, user_gate = model.gate_weights(one.item_seq, one.seq_len)
        scores = unseen_scores(model.scores(one), one)[0]
    length = int(one.seq_len[0])
    items = one.item_seq[0, :length].tolist()
    start = max(0, length - LATEST)
    weights = torch.cat([item_gate[0, start:length], user_gate[0, length - 1 : length]]).float().cpu().numpy()
    rows = [*(titles[i] for i in items[start:]), "the user, after all this"]
    figure = cells(
        rows,
        names,
        np.nan_to_num(weights),
        f"Weights of user {user} ({what})",
        f"The gate's weights of {len(rows) - 1} films and of the user, by modality",
        header="film",
    )
    best = scores.topk(LIST).indices.tolist()
    target = int(run.dataset.item_id[run.dataset.ends[VAL][user]])
    rank = int((scores >= scores[target]).sum())
    body = [[str(place + 1), titles[i] + (" (the true one)" if i == target else "")] for place, i in enumerate(best)]
    body.append([number(rank), f"the film that came next: {shorten(titles[target], 60)}"])
    table = Table("Recommended next", ["place", "film"], body, frozenset({0}), marked=frozenset({len(body) - 1}))
    return Group(f"User {user}", [Row([figure]), table])
