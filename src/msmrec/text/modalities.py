"""The schema of modalities: which sides of an item are described, and what in a document speaks about each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from msmrec.artifacts import InputError


@dataclass(frozen=True)
class Modality:
    """One side of an item, and where its evidence is found.

    Attributes:
        name: what tables and configs call it.
        fields: document fields taken whole, as field name -> label before the values ('directors' -> 'Directed by').
        genres: genres, of the item or of its documents, that say something about this side ('Musical' on audio).
        prose: document fields whose text belongs here sentence by sentence, from the start.
        cues: regular expressions in lower case, matched at word starts of the lower-cased sentence; a sentence of any
            other text, or one that `prose` had no room for, goes to the modality with the most different matches.
        instruction: what to say about this side, for generators that write.
    """

    name: str
    fields: dict[str, str] = field(default_factory=dict)
    genres: list[str] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    cues: list[str] = field(default_factory=list)
    instruction: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a modality needs a name")
        if not (self.fields or self.genres or self.prose or self.cues):
            raise InputError(f"modality {self.name!r} names no fields, genres, prose or cues: it would stay empty")
        for cue in self.cues:
            if re.sub(r"\\.", "", cue) != re.sub(r"\\.", "", cue).lower():
                raise InputError(f"modality {self.name!r}: cue {cue!r} must be in lower case, as the text it meets is")
            try:
                re.compile(cue)
            except re.error as error:
                raise InputError(f"modality {self.name!r}: cue {cue!r} is no regular expression ({error})") from None


def check_schema(schema: Sequence[Modality]) -> None:
    """Raise InputError where a schema is empty or uses a name twice."""
    names = [modality.name for modality in schema]
    if not names or len(set(names)) < len(names):
        raise InputError(f"a schema needs modalities of different names, not {names}")
