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


# fmt: off
MOVIE_MODALITIES: tuple[Modality, ...] = (
    Modality(
        name="narrative",
        prose=["plot", "overview"],
        cues=[
            r"plot\b", r"stor(y|ies) of\b", r"follows\b", r"tells?\b", r"revolves?\b",
            r"cent(er|re)s (on|around)", r"(film|movie|story) (is )?(about|concerns|depicts|chronicles|focus)",
            r"who (must|is|are|falls|tries)\b", r"premise\b", r"protagonist", r"themes?\b", r"storyline",
        ],
        instruction="What happens: plot, conflict and themes.",
    ),
    Modality(
        name="dialogue",
        fields={"writers": "Written by"},
        genres=["Comedy"],
        cues=[
            r"screenplay", r"screenwriter", r"script", r"(co-)?written (by|and)\b", r"adapted (by|from|for)\b",
            r"witty|\bwit\b", r"dialogue", r"satir", r"parod", r"spoof", r"humou?r", r"jokes?\b", r"banter",
            r"(in the )?(\w+ )?language\b", r"subtitl", r"monologue", r"slang", r"quot(e|ed|able)\b",
            r"one-liner", r"accent\b",
        ],
        instruction="How people speak: writing, wit, language.",
    ),
    Modality(
        name="visual",
        genres=["Animation", "Film-Noir", "Fantasy"],
        cues=[
            r"cinematograph", r"photograph(y|ed)\b", r"visual", r"special effects", r"black[- ]and[- ]white",
            r"colou?r\b", r"technicolor", r"animat(ed|ion|or)", r"stop[- ]motion", r"cgi\b",
            r"computer[- ]generated", r"costume", r"makeup|make-up", r"puppet",
            r"widescreen|cinemascope|70 ?mm|imax", r"film noir|neo-noir", r"camera", r"claymation",
            r"live[- ]action", r"silent\b", r"lighting", r"\b3-?d\b",
        ],
        instruction="How it looks: photography, colour, animation, effects.",
    ),
    Modality(
        name="set",
        genres=["Western", "War", "Sci-Fi", "History"],
        cues=[
            r"set (in|on|at|during|against|amid|within|around|aboard)\b", r"takes? place", r"located\b",
            r"locations?\b", r"shot (in|on|at|entirely)\b", r"filmed (in|on|at|entirely|around)\b",
            r"filming\b", r"in (the )?1[0-9]{3}s\b", r"(18|19)th[- ]century",
            r"during (the )?(\w+ )?(war|depression|revolution|occupation)", r"world war", r"future\b",
            r"post-apocalyptic|dystopian", r"small[- ]town", r"production design", r"art direction",
            r"medieval|victorian|ancient", r"(planet|island|village|castle|prison|desert|jungle|suburb)s?\b",
            r"(new york|london|paris|los angeles|chicago|san francisco|tokyo|berlin|rome|hong kong|texas|california)\b",
        ],
        instruction="Where and when it plays: places, period, sets.",
    ),
    Modality(
        name="audio",
        genres=["Musical", "Music"],
        cues=[
            r"scor(e|ed) (by|was|for|is|of)\b", r"musical", r"(film )?score\b", r"soundtrack", r"songs?\b",
            r"music\b", r"compos(ed|er)", r"sung\b|sings?\b|singer", r"sound (design|effects|mix|editing)",
            r"best sound\b", r"album", r"opera\b", r"band\b", r"jazz|rock and roll|hip[- ]hop|rap\b",
            r"orchestra", r"lyric", r"dubbed",
        ],
        instruction="How it sounds: score, songs, sound.",
    ),
    Modality(
        name="pace",
        genres=["Action", "Adventure", "Thriller", "Horror"],
        cues=[
            r"thriller", r"action\b", r"suspens", r"fast[- ]paced|slow|pac(e|ing)\b",
            r"(running time|runtime|minutes)\b", r"chas(e|es|ing)\b", r"rac(e|es|ing) (against|to)",
            r"tension|tense\b", r"explo(sion|sive|des?)", r"violen(t|ce)", r"escape", r"fight", r"slasher",
            r"martial arts", r"adventure", r"horror", r"epic\b", r"editing\b", r"short (film|subject)",
            r"heist",
        ],
        instruction="How it moves: tempo, tension, length.",
    ),
    Modality(
        name="direction",
        fields={"directors": "Directed by"},
        cues=[
            r"direct(ed|ion)\b", r"director", r"directorial", r"filmmak(er|ing)", r"auteur", r"helmed",
            r"produced by\b", r"producers?\b", r"best picture", r"remake\b",
        ],
        instruction="Whose hand it shows: director, producers, style.",
    ),
    Modality(
        name="acting",
        fields={"actors": "Starring"},
        cues=[
            r"starr(ing|ed)\b", r"stars\b", r"cast\b", r"performances?\b", r"act(or|ress|ors|resses|ing)\b",
            r"played by\b", r"portray", r"(lead|title|supporting|starring) roles?\b", r"role of\b", r"cameo",
            r"best (supporting )?(actor|actress)", r"featur(es|ing)\b", r"voice(d|s)?( of| by)?\b",
            r"ensemble", r"reprise",
        ],
        instruction="Who plays, and how.",
    ),
    Modality(
        name="poster",
        fields={"certificate": "Certificate", "released": "Released", "tagline": "Tagline", "studio": "Studio"},
        genres=["Children's", "Family", "Documentary"],
        cues=[
            r"tagline", r"(was |were )?(theatrically )?released\b", r"release\b", r"rat(ed|ing)\b",
            r"franchise", r"sequel|prequel|trilogy|installment|instalment|series\b", r"distribut",
            r"(studios?|pictures|productions)\b", r"box office", r"gross(ed|ing)\b", r"budget", r"premier",
            r"critic", r"reviews?\b", r"marketed|promot", r"award", r"based on\b", r"national film registry",
            r"success\b", r"cult\b", r"banned", r"title\b",
        ],
        instruction="How it presents itself: release, rating, franchise, reception.",
    ),
)
# fmt: on
"""The nine modalities of MSMRec, Table 2, with cues for films."""
