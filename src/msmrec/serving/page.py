"""What the explorer shows, as HTML: posters, lists, scores in parts. Titles are shown as text, whatever is in them."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from msmrec.columns import GENRES, RAW_ITEM_ID, TITLE
from msmrec.serving.explain import Explanation

SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
HISTORY = 24  # latest items that are shown

# Blue and orange, which the colour-blind tell apart, over whatever the theme's background is; text keeps its colour.
CSS = """
.mm-list { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 14px; padding: 0;
  margin: 4px 0; list-style: none; }
.mm-list li { margin: 0; padding: 0; }
.mm-poster { width: 100%; aspect-ratio: 2 / 3; border-radius: 6px; object-fit: cover; display: flex; margin: 0;
  align-items: safe center; justify-content: center; text-align: center; padding: 0; font-size: 13px; overflow: hidden;
  background: color-mix(in srgb, currentColor 9%, transparent); box-sizing: border-box; }
div.mm-poster { padding: 8px; overflow-wrap: anywhere; }
.mm-title { font-weight: 600; font-size: 14px; line-height: 1.3; margin-top: 6px; overflow-wrap: anywhere; }
.mm-small { font-size: 12.5px; opacity: .8; line-height: 1.35; }
.mm-scroll { overflow-x: auto; }
.mm-history { display: flex; gap: 10px; padding: 0 0 6px; margin: 4px 0; list-style: none; }
.mm-history li { flex: 0 0 84px; width: 84px; min-width: 0; margin: 0; padding: 0; }
.mm-history div.mm-poster { font-size: 11px; padding: 4px; }
.mm-history .mm-title { font-weight: 400; font-size: 12px; }
.mm-table { border-collapse: collapse; border: 0 !important; font-size: 13px; width: 100%; }
.mm-table th, .mm-table td { padding: 5px 5px !important; text-align: right; border: 0 !important; white-space: nowrap;
  border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent) !important; vertical-align: middle; }
.mm-table th { font-weight: 600; }
.mm-table tr, .mm-table thead, .mm-table tbody { border: 0 !important; }
.mm-table thead th { font-size: 12px; vertical-align: bottom; }
.mm-table .mm-text { text-align: left; white-space: normal; min-width: 170px; line-height: 1.35; }
.mm-table .mm-small { font-weight: 400; margin-top: 2px; }
.mm-table td { font-variant-numeric: tabular-nums; }
.mm-message { min-height: 1.4em; }
#everything { display: grid; gap: 16px 24px; grid-template: "who what" auto "how what" 1fr / 320px minmax(0, 1fr); }
#who { grid-area: who; } #how { grid-area: how; } #what { grid-area: what; }
#everything > * { min-width: 0 !important; }
#what .html-container { padding: 0; }
@media (max-width: 800px) {
  #everything { grid-template: "who" "what" "how" / minmax(0, 1fr); }
  .mm-list { grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); }
}
"""


class Posters:
    """Pictures of items, named by raw item id.

    Args:
        folder: of the pictures; None where there are none.
    """

    def __init__(self, folder: Path | None) -> None:
        files = sorted(folder.iterdir()) if folder else []
        self.paths = {path.stem: path for path in files if path.suffix.lower() in SUFFIXES}

    def html(self, raw_item_id: object, title: str) -> str:
        """The picture, inside the page itself; the title on a plain card; nothing where no item has a picture."""
        if not self.paths:
            return ""
        path = self.paths.get(str(raw_item_id))
        try:
            data = base64.b64encode(path.read_bytes()).decode() if path else ""
        except OSError:
            data = ""
        if not path or not data:
            return f'<div class="mm-poster" aria-hidden="true">{escape(title)}</div>'
        kind = SUFFIXES[path.suffix.lower()]
        return f'<img class="mm-poster" src="data:image/{kind};base64,{data}" alt="">'


class Page:
    """Parts of the page for one catalogue.

    Args:
        items: by item_id, see `Recommender.items`. posters: of them. modalities: names, in the model's order.
    """

    def __init__(self, items: pl.DataFrame, posters: Posters, modalities: Sequence[str]) -> None:
        self.rows = items.select(RAW_ITEM_ID, TITLE, GENRES).to_dicts()
        self.posters, self.modalities = posters, [name.replace("_", " ").capitalize() for name in modalities]

    def _row(self, item: int) -> dict[str, Any]:
        return self.rows[item - 1]

    def title(self, item: int) -> str:
        """As the dataset writes it, not escaped."""
        return str(self._row(item)[TITLE])

    def recommendations(self, why: Explanation) -> str:
        """Cards, best first."""
        if not len(why.items):
            return (
                '<p class="mm-message">Nothing is left to recommend: everything that passes the filters was seen.</p>'
            )
        cards = []
        for place, (item, score) in enumerate(zip(why.items.tolist(), why.scores.tolist(), strict=True), 1):
            row = self._row(item)
            cards.append(
                f"<li>{self.posters.html(row[RAW_ITEM_ID], row[TITLE])}"
                f'<div class="mm-title">{place}. {escape(row[TITLE])}</div>'
                f'<div class="mm-small">{escape(", ".join(row[GENRES]))}</div>'
                f'<div class="mm-small">score {score:.2f}</div></li>'
            )
        return f'<ol class="mm-list" aria-label="Recommendations">{"".join(cards)}</ol>'

    def history(self, why: Explanation) -> str:
        """The latest items, latest first, in one row that scrolls."""
        cards = []
        for item in why.history[::-1][:HISTORY].tolist():
            row = self._row(item)
            cards.append(
                f"<li>{self.posters.html(row[RAW_ITEM_ID], row[TITLE])}"
                f'<div class="mm-title">{escape(row[TITLE])}</div></li>'
            )
        shown = f"the latest {HISTORY} of {len(why.history)}" if len(why.history) > HISTORY else f"{len(why.history)}"
        return (
            f'<p class="mm-small">Latest first: {shown}.</p><div class="mm-scroll" tabindex="0" role="region"'
            f' aria-label="History, latest first"><ol class="mm-history">{"".join(cards)}</ol></div>'
        )

    def reasons(self, why: Explanation) -> str:
        """A table: the score, its parts where the model has some, and the nearest items of the history."""
        if not len(why.items):
            return ""
        has_parts = why.parts.shape[1] > 0
        names = ["ID", *self.modalities] if has_parts else []
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("Score", *names))
        # One scale for the modalities; that of the ID vectors, which carry most, would hide them.
        scale = max(float(np.abs(why.parts[:, 1:]).max()), 1e-9) if has_parts else 1.0
        body = []
        for place in range(len(why.items)):
            near = ", ".join(
                f"{escape(self.title(item))} ({cosine:.2f})"
                for item, cosine in zip(why.near[place].tolist(), why.nearness[place].tolist(), strict=True)
            )
            cells = "".join(
                f"<td{'' if k == 0 else _tint(value / scale)}>{value:+.2f}</td>"
                for k, value in enumerate(why.parts[place].tolist())
            )
            title = escape(self.title(int(why.items[place])))
            body.append(
                f'<tr><td>{place + 1}</td><th scope="row" class="mm-text">{title}'
                f'<div class="mm-small">near {near}</div></th><td>{why.scores[place]:.2f}</td>{cells}</tr>'
            )
        told = "A row sums to its score: what the ID vectors give, and each modality, weighed by the gate. " * has_parts
        return (
            f'<p class="mm-small">{told}Near: the items of the history whose vectors are nearest (cosine).</p>'
            '<div class="mm-scroll" tabindex="0" role="region" aria-label="Why"><table class="mm-table"><thead><tr>'
            f'<th scope="col">#</th><th scope="col" class="mm-text">Item</th>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>"
        )


def message(text: str) -> str:
    """A line for the reader, as text."""
    return f'<p class="mm-message" role="status">{escape(text)}</p>'


def _tint(share: float) -> str:
    colour = "0, 114, 178" if share > 0 else "230, 159, 0"
    return f' style="background: rgba({colour}, {min(abs(share), 1) * 0.45:.2f})"'
