"""Schemas of modalities, by what the items are. A config may list its own modalities instead."""

from typing import Literal

from msmrec.text.modalities import MOVIE_MODALITIES, Modality

SchemaName = Literal["films", "books", "products"]

BOOK_MODALITIES: tuple[Modality, ...] = (
    Modality("title", {"title": "Title"}, instruction="What its title promises."),
    Modality(
        "plot",
        {"genres": "Genre"},
        prose=["plot", "overview", "description"],
        cues=[r"novel\b", r"stor(y|ies)\b", r"follows\b", r"tells?\b", r"about\b", r"plot\b", r"themes?\b"],
        instruction="What happens or is argued: plot, subject and themes.",
    ),
    Modality(
        "author",
        {"author": "Written by"},
        cues=[r"author", r"written by\b", r"writer", r"novelist", r"poet\b", r"pen name"],
        instruction="Who wrote it, and how they write.",
    ),
    Modality(
        "publisher",
        {"publisher": "Published by"},
        cues=[r"publish", r"edition", r"paperback|hardcover", r"bestsell", r"award", r"prize"],
        instruction="Where and how it appeared: publisher, edition, reception.",
    ),
    Modality(
        "period",
        {"year": "Published in", "period": "From the"},
        cues=[r"set in\b", r"(18|19|20)th[- ]century", r"century\b", r"in (the )?1[0-9]{3}s?\b", r"world war"],
        instruction="When it was written and when it plays.",
    ),
)
"""For books, Book-Crossing's columns among them."""

PRODUCT_MODALITIES: tuple[Modality, ...] = (
    Modality("title", {"title": "Title"}, instruction="What it is."),
    Modality("brand", {"brand": "Brand", "studio": "Studio"}, cues=[r"brand\b"], instruction="Who makes it."),
    Modality("category", {"genres": "Category"}, instruction="Which kind of thing it is."),
    Modality(
        "description",
        prose=["description", "plot", "overview"],
        cues=[r"designed\b", r"perfect\b", r"ideal\b"],
        instruction="What it is for and what it is like.",
    ),
    Modality(
        "features",
        {"features": "Features", "actors": "Starring", "directors": "Directed by", "released": "Released"},
        cues=[r"feature", r"includ", r"made (of|from)\b", r"material", r"size\b", r"inch", r"compatib"],
        instruction="What it has: features, material, size, compatibility; who made it.",
    ),
)
"""For products, Amazon's columns among them; their `genres` are categories."""

SCHEMAS: dict[SchemaName, tuple[Modality, ...]] = {
    "films": MOVIE_MODALITIES,
    "books": BOOK_MODALITIES,
    "products": PRODUCT_MODALITIES,
}
