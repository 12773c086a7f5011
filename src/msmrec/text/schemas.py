"""Schemas of modalities, by what the items are. A config may list its own modalities instead."""

from typing import Literal

from msmrec.text.modalities import Modality

SchemaName = Literal["films", "books", "products"]

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
