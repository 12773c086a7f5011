"""Which documents are about which item: lexical retrieval by title, year and words, dense where that is ambiguous.

No ids are shared, so three kinds of evidence are added up for a candidate pair: how alike the titles are (cosine of
character n-gram TF-IDF, 0 to 1), whether the years agree, and how alike the document is to the item's documents from
the *other* files (cosine of word TF-IDF over plot, people and places). The last is what tells remakes apart in a
file that gives no years. A pair below the threshold is dropped: an item without a document gets none.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from msmrec.columns import DOC_ID, ITEM_ID, TITLE, YEAR
from msmrec.text.encoder import TextEncoder
from msmrec.text.similarity import FloatArray, IntArray, best_of_pairs, blocks, tfidf, top_per_row
from msmrec.text.titles import Naming, name_document, name_title

_NAME_FIELDS = frozenset({DOC_ID, "source", TITLE, YEAR, "released", "poster_url", "certificate"})
_MAX_YEARS = 3
_TITLE_FLOOR = 0.45
_TITLE_CANDIDATES = 64  # Hamlet has 45 documents of exactly that title
_TEXT_CANDIDATES = 3
_TEXT_FLOOR = 0.2
_THRESHOLD = 1.3  # least score of a pair; same title and year is 1.5, same title alone 1.0, unlike years cost 1
_INEXACT = 0.97  # the most that two titles can score that are not the same


def retrieve(
    items: pl.DataFrame,
    documents: pl.DataFrame,
    encoder: TextEncoder | None = None,
    top_k: int = 1,
) -> pl.DataFrame:
    """Find the documents of each item, at most `top_k` per source.

    Args:
        items: columns `item_id`, `title` (may hold a year and alternate titles in parentheses), `year` (nullable).
        documents: `KnowledgeBase.documents`.
        encoder: adds the cosine of vectors to the evidence where words alone leave a choice open.
        top_k: documents kept per item and source.

    Returns:
        Columns `item_id`, `doc_id`, `source`, `score`, sorted by item, source and falling score. A document serves
        the item it fits best only (items of equal score share it).
    """
    from tqdm import tqdm

    matcher = _Matcher(items, documents)
    steps = tqdm(total=2 * len(matcher.sources), desc="retrieve")
    best: dict[str, IntArray] = {}
    pairs: dict[str, tuple[IntArray, IntArray, FloatArray]] = {}
    for source in matcher.sources:  # titles and years alone: sure matches, whose words then speak for the others
        pairs[source] = matcher.title_pairs(source)
        item, doc, title = pairs[source]
        score = title + matcher.year_evidence(item, doc)
        best[source] = matcher.top_one(item, doc, np.where(score >= _THRESHOLD, score, -1))
        steps.update()
    matcher.find_namesakes(pairs)
    frames = []
    for source in matcher.sources:
        item, doc, title = matcher.with_text_pairs(source, best, pairs[source])
        base = title + matcher.year_evidence(item, doc)
        # without a year nothing but the very title names the thing
        base[np.isnan(matcher.year_gap(item, doc)) & (title < 0.999)] -= 0.4
        text = matcher.text_evidence(source, item, doc, best)
        if encoder is not None:
            text = matcher.add_dense(source, item, doc, base, text, best, encoder)
        score = base + _text_weight(text) + matcher.sole_evidence(item, doc, title, text)
        frames.append(matcher.accept(item, doc, score, top_k))
        steps.update()
    steps.close()
    return pl.concat(frames).sort([ITEM_ID, "source", "score", DOC_ID], descending=[False, False, True, False])


def _text_weight(text: FloatArray) -> FloatArray:
    """Score of a word similarity: NaN (nothing to compare with) 0; none at all speaks against."""
    weight = np.clip(3.0 * text - 0.1, -0.1, 0.8) + 0.3 * np.maximum(text - 0.3, 0.0)
    return np.where(np.isnan(text), 0.0, weight).astype(np.float32)


class _Matcher:
    """Items and documents in array form: title forms, years and word vectors, with row numbers as ids."""

    def __init__(self, items: pl.DataFrame, documents: pl.DataFrame) -> None:
        self.item_ids = items[ITEM_ID]
        self.documents = documents
        self.sources: list[str] = documents["source"].unique(maintain_order=True).to_list()
        self.source_rows = {s: np.flatnonzero((documents["source"] == s).to_numpy()) for s in self.sources}
        years = items[YEAR] if YEAR in items.columns else pl.Series([None] * len(items), dtype=pl.Int32)
        item_names = [
            name_title(title, () if year is None else (int(year),))
            for title, year in zip(items[TITLE], years, strict=True)
        ]
        doc_names = [name_document(row) for row in documents.iter_rows(named=True)]
        self.item_years, self.doc_years = _year_table(item_names), _year_table(doc_names)
        self.item_forms, self.doc_forms = _Forms(item_names), _Forms(doc_names)
        self._fit_titles()
        self.texts = _evidence_texts(documents)
        self.words = tfidf(self.texts, analyzer="word")
        self.text_code: IntArray = np.unique(np.array(self.texts, dtype=object), return_inverse=True)[1]
        self.namesake = np.zeros(len(items), dtype=bool)

    def _fit_titles(self) -> None:
        both = tfidf(self.item_forms.text + self.doc_forms.text, analyzer="char_wb", ngram_range=(3, 3))
        split = len(self.item_forms.text)
        self.item_forms.grams, self.doc_forms.grams = both[:split], both[split:]
        # One number for each distinct form, and one for the numerals in it: equal forms, equal sequels.
        codes = np.unique(np.array(self.item_forms.text + self.doc_forms.text, dtype=object), return_inverse=True)[1]
        self.item_forms.code, self.doc_forms.code = codes[:split], codes[split:]
        numerals = [
            " ".join(w for w in t.split() if w.isdigit() and len(w) < 4)
            for t in self.item_forms.text + self.doc_forms.text
        ]
        codes = np.unique(np.array(numerals, dtype=object), return_inverse=True)[1]
        self.item_forms.numeral, self.doc_forms.numeral = codes[:split], codes[split:]

    def title_pairs(self, source: str) -> tuple[IntArray, IntArray, FloatArray]:
        """Candidate pairs by title: item rows, document rows, title similarity."""
        forms, docs = self.item_forms, self.doc_forms
        columns = np.flatnonzero(np.isin(docs.owner, self.source_rows[source]))
        found = []
        for rows, row, column, value in blocks(forms.grams, docs.grams[columns], _TITLE_FLOOR):
            left, right = rows[row], columns[column]
            same = forms.code[left] == docs.code[right]
            value = np.where(same, 1.0, np.minimum(value, _INEXACT))
            sequel = forms.numeral[left] != docs.numeral[right]
            # 'Scary Movie (2000)' and 'Scary Movie 2' of 2001 share title and cast, and are two films
            apart = self.year_gap(forms.owner[left], docs.owner[right]) > 0
            value = np.where(sequel, np.where(apart, 0.0, 0.7 * value), value)
            value = value * np.minimum(forms.weight[left], docs.weight[right])
            found.append((forms.owner[left], docs.owner[right], value.astype(np.float32)))
        return best_of_pairs(found, _TITLE_CANDIDATES)

    def year_evidence(self, item: IntArray, doc: IntArray) -> FloatArray:
        """Score of the years' agreement for pairs, by the closest of the years that each side gives."""
        gap = self.year_gap(item, doc)
        steps = [np.isnan(gap), gap == 0, gap == 1, gap == 2]
        return np.select(steps, [0.0, 0.5, 0.35, 0.0], default=-1.0).astype(np.float32)

    def year_gap(self, item: IntArray, doc: IntArray) -> npt.NDArray[np.float64]:
        """Years between a pair, NaN where one side gives none."""
        left, right = self.item_years[item], self.doc_years[doc]
        gap = np.full(len(item), np.nan)
        for a in range(left.shape[1]):
            for b in range(right.shape[1]):
                gap = np.fmin(gap, np.abs(left[:, a] - right[:, b]))
        return gap

    def find_namesakes(self, pairs: dict[str, tuple[IntArray, IntArray, FloatArray]]) -> None:
        """Mark the items of whose very title the base knows a thing of another year."""
        for item, doc, title in pairs.values():
            self.namesake[item[(title >= 0.999) & (self.year_gap(item, doc) > 2)]] = True

    def sole_evidence(self, item: IntArray, doc: IntArray, title: FloatArray, text: FloatArray) -> FloatArray:
        """Score of being the only item and the only document (copies aside) of a title, where years do not decide.

        It is less where the words speak against the pair, or the base knows another thing of that title by its year.
        """
        pairs = pl.DataFrame({"item": item, "copy": self.text_code[doc], "same": title >= 0.999})
        titles = pairs.filter("same")
        lone_item = titles.group_by("item").agg(pl.col("copy").n_unique().alias("copies"))
        lone_copy = titles.group_by("copy").agg(pl.col("item").n_unique().alias("items"))
        counts = pairs.join(lone_item, on="item", how="left", maintain_order="left")
        counts = counts.join(lone_copy, on="copy", how="left", maintain_order="left")
        sole = (counts["same"] & (counts["copies"] == 1) & (counts["items"] == 1)).fill_null(False).to_numpy()
        doubtful = self.namesake[item] | (text < 0.03)
        gap = self.year_gap(item, doc)
        weight = np.select([np.isnan(gap), gap == 2], [np.where(doubtful, 0.15, 0.4), 0.25], default=0.0)
        return np.where(sole, weight, 0.0).astype(np.float32)

    def top_one(self, item: IntArray, doc: IntArray, score: FloatArray) -> IntArray:
        """The best document row of each item row by score, -1 where no score is positive; ties by row."""
        chosen = np.full(len(self.item_ids), -1, dtype=np.int64)
        keep = score > 0
        order = np.lexsort((-doc[keep], score[keep]))
        chosen[item[keep][order]] = doc[keep][order]
        return chosen

    def with_text_pairs(
        self, source: str, best: dict[str, IntArray], pairs: tuple[IntArray, IntArray, FloatArray]
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Add candidates by words: documents of this source that read like the item's documents elsewhere.

        Only items without a sure match here ask; titles in another language are found this way.
        """
        columns = self.source_rows[source]
        found = [pairs]
        open_items = best[source] < 0
        for other, chosen in best.items():
            asking = np.flatnonzero(open_items & (chosen >= 0))
            if other == source or not len(asking):
                continue
            for rows, row, column, value in blocks(self.words[chosen[asking]], self.words[columns], _TEXT_FLOOR):
                keep = top_per_row(row, value, _TEXT_CANDIDATES)
                item, doc = asking[rows[row[keep]]], columns[column[keep]]
                found.append((item, doc, np.zeros(len(item), dtype=np.float32)))
        return best_of_pairs(found, _TITLE_CANDIDATES + _TEXT_CANDIDATES)

    def text_evidence(self, source: str, item: IntArray, doc: IntArray, best: dict[str, IntArray]) -> FloatArray:
        """Highest word similarity of a pair's document to the item's sure documents elsewhere; NaN without any."""
        evidence = np.full(len(item), np.nan, dtype=np.float32)
        for other, chosen in best.items():
            known = chosen[item] >= 0
            if other != source and known.any():
                left, right = self.words[chosen[item[known]]], self.words[doc[known]]
                cosine = np.asarray(left.multiply(right).sum(axis=1)).ravel()
                evidence[known] = np.fmax(evidence[known], cosine.astype(np.float32))
        return evidence

    def add_dense(
        self,
        source: str,
        item: IntArray,
        doc: IntArray,
        base: FloatArray,
        text: FloatArray,
        best: dict[str, IntArray],
        encoder: TextEncoder,
    ) -> FloatArray:
        """Average the word evidence with the vectors' cosine for pairs that words leave open.

        Open is a pair that could pass the threshold and does not by a wide margin, or has a rival that could.
        Cosines of encoders have their own zero: the mean cosine of shuffled pairs is taken as 'unrelated'.
        """
        hopeful = base + 0.8 >= _THRESHOLD
        rivals = np.bincount(item[hopeful], minlength=len(self.item_ids))
        # the item's own best document elsewhere is what a candidate is compared with
        others = np.stack([chosen for other, chosen in best.items() if other != source] or [np.full_like(rivals, -1)])
        reference = others.max(axis=0)[item]
        score = base + _text_weight(text)
        open_pairs = np.flatnonzero(hopeful & (reference >= 0) & ((rivals[item] > 1) | (score < _THRESHOLD + 0.2)))
        if not len(open_pairs):
            return text
        left, right = reference[open_pairs], doc[open_pairs]
        needed, position = np.unique(np.concatenate([left, right]), return_inverse=True)
        vectors = np.asarray(encoder.encode([self.texts[row] for row in needed]), dtype=np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        a, b = vectors[position[: len(left)]], vectors[position[len(left) :]]
        unrelated = float(np.mean(np.sum(vectors * np.roll(vectors, 1, axis=0), axis=1)))
        cosine = np.clip((np.sum(a * b, axis=1) - unrelated) / max(1.0 - unrelated, 1e-6), 0.0, 1.0)
        mixed = text.copy()
        mixed[open_pairs] = np.nanmean(np.stack([text[open_pairs], 0.5 * cosine]), axis=0)
        return mixed

    def accept(self, item: IntArray, doc: IntArray, score: FloatArray, top_k: int) -> pl.DataFrame:
        """The pairs that pass: above the threshold, no better item for the document, among the item's best."""
        pairs = pl.DataFrame({"item": item, "doc": doc, "score": score}).filter(pl.col("score") >= _THRESHOLD)
        pairs = pairs.filter(pl.col("score") >= pl.col("score").max().over("doc") - 1e-6)
        pairs = pairs.sort(["item", "score", "doc"], descending=[False, True, False])
        pairs = pairs.filter(pl.int_range(pl.len()).over("item") < top_k)
        docs = self.documents[pairs["doc"].to_list()] if len(pairs) else self.documents.clear()
        return pl.DataFrame(
            {
                ITEM_ID: self.item_ids.gather(pairs["item"]),
                DOC_ID: docs[DOC_ID],
                "source": docs["source"],
                "score": pairs["score"].cast(pl.Float32),
            }
        )


class _Forms:
    """The title forms of many things, flattened: form k belongs to row `owner[k]`."""

    grams: Any  # sparse (n_forms, n_grams)
    code: IntArray
    numeral: IntArray

    def __init__(self, names: list[Naming]) -> None:
        self.text = [form for name in names for form, _ in name.forms]
        self.weight = np.array([weight for name in names for _, weight in name.forms], dtype=np.float32)
        self.owner = np.repeat(np.arange(len(names)), [len(name.forms) for name in names])


def _year_table(names: list[Naming]) -> npt.NDArray[np.float64]:
    table = np.full((len(names), _MAX_YEARS), np.nan)
    for row, name in enumerate(names):
        years = name.years[:_MAX_YEARS]
        table[row, : len(years)] = years
    return table


def _evidence_texts(documents: pl.DataFrame) -> list[str]:
    """What a document says besides its name: prose and people."""
    columns = [name for name in documents.columns if name not in _NAME_FIELDS]
    if not columns:
        return [""] * len(documents)
    joined = documents.select(pl.concat_str([pl.col(name).fill_null("") for name in columns], separator=" "))
    return joined.to_series().to_list()
