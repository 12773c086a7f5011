"""How far modality texts rest on what is known about their items, measured without a model (MSMRec, 7.3).

The yardstick is an item's evidence: its own metadata and all its documents, whichever of them a text names as its
source. A claim is supported where the evidence holds its words; that a sentence puts known words together wrongly is
not seen, except where it states a year of release, a director or a cast member that contradicts the evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import DOC_ID, ITEM_ID, MODALITY, TEXT, TITLE
from msmrec.text.claims import KINDS, claims, name_words, pair, stated_people, stated_years, terms
from msmrec.text.describe import item_document
from msmrec.text.titles import YEAR

ALL = "all"
"""What a summary calls the row of all modalities together."""

SHARES = [f"{kind[:-1]}_support" for kind in KINDS]
"""Columns of the shares of claims that are supported, one a kind."""

DIGITS = {"length": 1, "claims": 1, "contradictions": 1}
"""Of the columns of a summary that are no shares, where it is printed."""

_YEAR_FIELDS = ["year", "released"]
_PEOPLE_FIELDS = {"director": ["directors", "director"], "cast": ["actors", "cast", "starring"]}
_NOT_SAID = [DOC_ID, "source", "score"]
_ENTRY = r"[^|,;()]+"
_WRONG = {"wrong_years": "year", "wrong_directors": "director", "wrong_cast": "cast"}


@dataclass(frozen=True)
class Evidence:
    """What is known about items, in the form that claims are looked up in.

    Attributes:
        fields: item_id, doc_id, field, value: every document of every item, its own metadata as doc_id 'item'.
        terms: item_id, term: the words, numbers and pairs of names (msmrec.text.claims) of an item's documents.
        rarity: term, weight: ln(1 + N / (1 + n)) for a term that n of N items' evidence holds.
        years: item_id, year (Int32): years of release, from fields and from statements in prose.
        people: item_id, role ('director', 'cast' or 'title'), name (UInt32), word, size: known people by the `size`
            words of their names. An item's titles stand among them because one that follows a name in a list
            ('Directed by Michael Mann, Heat ...') is no person.
    """

    fields: pl.DataFrame
    terms: pl.DataFrame
    rarity: pl.DataFrame
    years: pl.DataFrame
    people: pl.DataFrame

    @classmethod
    def of(cls, items: pl.DataFrame, documents: pl.DataFrame) -> "Evidence":
        """Read the evidence of items.

        Args:
            items: one row an item, with `item_id`, `title`, `year`, `genres`.
            documents: one row a document of an item: `item_id`, `doc_id` and the document's fields (strings), as
                `ItemText.documents` returns them. A document that comes twice counts once.

        Raises:
            InputError: a document belongs to no item.
        """
        own = [{ITEM_ID: item[ITEM_ID], **item_document(item)} for item in items.iter_rows(named=True)]
        columns = dict.fromkeys([ITEM_ID, DOC_ID, TITLE, *(key for row in own for key in row)])
        table = pl.DataFrame(own, schema={name: pl.Int32 if name == ITEM_ID else pl.String for name in columns})
        if len(lost := documents.join(items, on=ITEM_ID, how="anti")):
            raise InputError(f"document {lost[DOC_ID][0]!r}: its item {lost[ITEM_ID][0]} is not among the items")
        fields = pl.concat([_long(table), _long(documents)]).unique(maintain_order=True)
        said = fields["field"] + ": " + fields["value"]  # a field's name is known with its value: 'directors'
        items_of_row = fields.select(ITEM_ID).with_row_index("row")
        found = terms(said).join(items_of_row, on="row").select(ITEM_ID, "term").unique()
        many = fields[ITEM_ID].n_unique()
        rarity = found.group_by("term").agg(weight=(1 + many / (1 + pl.len())).log())
        dates = fields.filter(pl.col("field").is_in(_YEAR_FIELDS))
        dates = dates.select(ITEM_ID, year=pl.col("value").str.extract_all(rf"\b{YEAR}\b").cast(pl.List(pl.Int32)))
        stated = stated_years(said).join(items_of_row, on="row").select(ITEM_ID, "year")
        years = pl.concat([dates.explode("year").drop_nulls(), stated]).unique()
        return cls(fields, found, rarity, years, _people(fields, said, items_of_row))


def _long(documents: pl.DataFrame) -> pl.DataFrame:
    names = [name for name in documents.columns if name not in (ITEM_ID, *_NOT_SAID)]
    rows = documents.select(pl.col(ITEM_ID).cast(pl.Int32), DOC_ID, pl.col(names).cast(pl.String))
    rows = rows.unpivot(names, index=[ITEM_ID, DOC_ID], variable_name="field")
    rows = rows.with_columns(pl.col("value").cast(pl.String))  # without any field, as with metadata_only, it is null
    return rows.filter(pl.col("value").is_not_null() & ~pl.col("value").str.contains(r"^(https?://|$)"))


def _people(fields: pl.DataFrame, said: pl.Series, items_of_row: pl.DataFrame) -> pl.DataFrame:
    """The people of `Evidence`."""
    parts = [fields.filter(pl.col("field") == TITLE).select(ITEM_ID, role=pl.lit("title"), name="value")]
    for role, columns in _PEOPLE_FIELDS.items():
        listed = fields.filter(pl.col("field").is_in(columns)).select(
            ITEM_ID, role=pl.lit(role), name=pl.col("value").str.replace_all(r"\([^()]*\)", "").str.extract_all(_ENTRY)
        )
        stated = stated_people(said, role).join(items_of_row, on="row")
        parts += [listed.explode("name").drop_nulls(), stated.select(ITEM_ID, role=pl.lit(role), name="name")]
    return _by_words(pl.concat(parts).unique(maintain_order=True))


def _by_words(names: pl.DataFrame) -> pl.DataFrame:
    """One row a word of each name; `name` becomes a number, `size` is its count of words."""
    words = name_words(names["name"]).rename({"row": "name"}).with_columns(size=pl.len().over("name"))
    return names.rename({"name": "as_written"}).with_row_index("name").join(words, on="name", maintain_order="left")


def faithfulness(texts: pl.DataFrame, evidence: Evidence) -> pl.DataFrame:
    """What each text claims, how much of it its item's evidence supports, and what the evidence contradicts.

    Args:
        texts: item_id, modality, text; further columns are not read.
        evidence: of the same items.

    Returns:
        One row a text, in the order of `texts`:
        item_id, modality;
        length: words between spaces;
        names, numbers, years, words: how many different claims of each kind;
        name_support, number_support, year_support, word_support: the shares of them that the evidence holds, null
            where there are none;
        support: the share over all kinds, each claim weighted by its terms' rarity, so that 'Pacino' says more
            than 'young'; null where nothing is claimed;
        wrong_years, wrong_directors, wrong_cast: statements that contradict the evidence: a year of release that is
            none of the known ones, a director who is none of the known ones, a cast member who is no known one and
            is named nowhere in the evidence. 0 where nothing is known to contradict;
        contradicted: these statements ('director Ed Wood').

    Raises:
        InputError: a text's item is not among the items of the evidence.
    """
    rows = texts.select(ITEM_ID, MODALITY, TEXT).with_row_index("row")
    if len(lost := rows.join(evidence.fields, on=ITEM_ID, how="anti")):
        raise InputError(f"text {lost['row'][0]}: item {lost[ITEM_ID][0]} is not among the items of the evidence")
    rows = rows.with_columns(pl.col(TEXT).fill_null(""))
    result = rows.with_columns(length=pl.col(TEXT).str.count_matches(r"\S+")).drop(TEXT)
    supported = _support(claims(rows[TEXT]), rows, evidence)
    result = result.join(supported, on="row", how="left", maintain_order="left")
    wrong = pl.concat([_wrong_years(rows, evidence), *(_wrong_people(rows, evidence, role) for role in _PEOPLE_FIELDS)])
    counts = wrong.group_by("row").agg(
        *(pl.col("what").str.starts_with(f"{word} ").sum().alias(name) for name, word in _WRONG.items()),
        contradicted="what",
    )
    result = result.join(counts, on="row", how="left", maintain_order="left").drop("row")
    return result.with_columns(pl.col(*KINDS, *_WRONG).fill_null(0), pl.col("contradicted").fill_null([]))


def _support(claimed: pl.DataFrame, rows: pl.DataFrame, evidence: Evidence) -> pl.DataFrame:
    """Counts and supported shares of claims by row, against the evidence of the item that `rows` gives each row."""
    claimed = claimed.join(rows.select("row", ITEM_ID), on="row").join(evidence.rarity, on="term", how="left")
    claimed = claimed.join(evidence.terms.with_columns(known=True), on=[ITEM_ID, "term"], how="left")
    unheard = np.log1p(evidence.fields[ITEM_ID].n_unique())
    each = claimed.group_by("row", "kind", "claim").agg(
        pl.col("known").is_not_null().all(), pl.col("weight").fill_null(unheard).max()
    )
    of_kind = [pl.col("known").filter(pl.col("kind") == kind) for kind in KINDS]
    return each.group_by("row").agg(
        *(known.len().alias(kind) for kind, known in zip(KINDS, of_kind, strict=True)),
        *(known.mean().alias(name) for name, known in zip(SHARES, of_kind, strict=True)),
        support=(pl.col("known") * pl.col("weight")).sum() / pl.col("weight").sum(),
    )


def _wrong_years(rows: pl.DataFrame, evidence: Evidence) -> pl.DataFrame:
    stated = stated_years(rows[TEXT]).join(rows.select("row", ITEM_ID), on="row")
    stated = stated.join(evidence.years.select(ITEM_ID).unique(), on=ITEM_ID, how="semi")
    wrong = stated.join(evidence.years, on=[ITEM_ID, "year"], how="anti")
    return wrong.select("row", what=pl.format("year {}", "year"))


def _wrong_people(rows: pl.DataFrame, evidence: Evidence, role: str) -> pl.DataFrame:
    of_role = evidence.people.filter(pl.col("role") == role)
    stated = stated_people(rows[TEXT], role).join(rows.select("row", ITEM_ID), on="row", maintain_order="left")
    stated = _by_words(stated.join(of_role, on=ITEM_ID, how="semi", maintain_order="left"))
    stated = stated.filter(pl.col("size") > 1)
    known = evidence.people.filter(pl.col("role").is_in([role, "title"]))
    shared = stated.join(known, on=[ITEM_ID, "word"], suffix="_known").group_by("name", "name_known").agg(
        pl.col("word").n_unique(), pl.col("size", "size_known", "role").first()
    )  # fmt: skip
    is_part = pl.col("word") == pl.col("size")
    has_part = (pl.col("word") == pl.col("size_known")) & (pl.col("role") == role)
    fitting = shared.filter(is_part | has_part).select("name")
    if role == "cast":  # documents list the first few of a cast: who is named anywhere may be one of it
        pairs = stated.select("name", "size", ITEM_ID, term=pair("word", "name")).drop_nulls("term")
        named = pairs.join(evidence.terms, on=[ITEM_ID, "term"], how="semi")
        named = named.group_by("name", "size").len().filter(pl.col("len") == pl.col("size") - 1)
        fitting = pl.concat([fitting, named.select("name")])
    wrong = stated.unique("name", maintain_order=True).join(fitting, on="name", how="anti", maintain_order="left")
    return wrong.select("row", what=pl.format("{} {}", pl.lit(role), "as_written"))


def summarise(texts: pl.DataFrame, evidence: Evidence) -> pl.DataFrame:
    """A table of texts in numbers.

    Returns:
        One row a modality in the order of the table, then one named 'all':
        modality; texts: how many are not empty; coverage: their share; length: their mean words;
        diversity: mean cosine distance of the TF-IDF vectors of two items' texts, 0 where all say the same (in the
            last row the mean over modalities); null for fewer than two texts;
        claims: different claims a text; name_support, number_support, year_support, word_support, support: means over
            the texts that make such claims;
        contradictions: per 100 texts.
    """
    scores = faithfulness(texts, evidence)
    told = scores.with_columns(text=texts[TEXT].fill_null("")).with_columns(told=pl.col("length") > 0)
    names = told[MODALITY].unique(maintain_order=True).to_list()
    of_modality = {name: told.filter(pl.col("told") & (pl.col(MODALITY) == name))[TEXT].to_list() for name in names}
    diversity = pl.DataFrame(
        {MODALITY: names, "diversity": [_diversity(of_modality[name]) for name in names]},
        schema={MODALITY: pl.String, "diversity": pl.Float64},
    )
    columns = [
        pl.col("told").sum().alias("texts"),
        pl.col("told").mean().alias("coverage"),
        pl.col("length").filter("told").mean(),
        pl.sum_horizontal(KINDS).filter("told").mean().alias("claims"),
        pl.col(*SHARES, "support").mean(),
        (pl.sum_horizontal(list(_WRONG)).sum() / pl.col("told").sum() * 100).fill_nan(None).alias("contradictions"),
    ]
    by_modality = told.group_by(MODALITY, maintain_order=True).agg(columns).join(diversity, on=MODALITY)
    overall = told.select(pl.lit(ALL).alias(MODALITY), *columns) if len(told) else by_modality
    overall = overall.with_columns(diversity=diversity["diversity"].mean()) if len(told) else overall
    order = [MODALITY, "texts", "coverage", "length", "diversity", "claims", *SHARES, "support", "contradictions"]
    return pl.concat([by_modality.select(order), overall.select(order)])


def _diversity(texts: list[str]) -> float | None:
    """1 - the mean cosine of all pairs, from the sum of the unit vectors: |sum|^2 = n + what the pairs give."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(texts) < 2:
        return None
    try:
        vectors = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    except ValueError:  # no text has a word
        return 0.0
    lengths = float(vectors.multiply(vectors).sum())  # n, but for texts without a word
    total = np.asarray(vectors.sum(0)).ravel()
    return max(0.0, 1 - float(total @ total - lengths) / (len(texts) * (len(texts) - 1)))


def compare_faithfulness(tables: Mapping[str, pl.DataFrame], evidence: Evidence) -> pl.DataFrame:
    """Several tables of texts side by side, such as generators, or one with and without retrieval.

    Args:
        tables: texts (item_id, modality, text) by name.
        evidence: one yardstick for all of them.

    Returns:
        `summarise` of each table with a column `generator` (its name) after `modality`; a modality's rows stand
        together, those of 'all' last.
    """
    named = ((pl.lit(name).alias("generator"), summarise(texts, evidence)) for name, texts in tables.items())
    rows = pl.concat(table.insert_column(1, name) for name, table in named)
    place = pl.DataFrame({MODALITY: [*(m for m in rows[MODALITY].unique(maintain_order=True) if m != ALL), ALL]})
    return place.join(rows, on=MODALITY, maintain_order="left_right")
