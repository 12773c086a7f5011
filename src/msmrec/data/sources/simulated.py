"""A simulated catalogue of films whose users attend to known modalities: what MSMRec should find out can be checked.

<root>/<name>/ratings.parquet    raw_user_id, raw_item_id, rating, timestamp; by user, then time
              items.parquet      raw_item_id, title, year
              aspects.parquet    raw_item_id, modality, aspect: what the texts say, and what users like or not
              knowledge.jsonl    documents: doc_id, title, year and one text a modality
              truth.parquet      raw_user_id, modality, start, end, mean (planted weights), likes (aspects)
              settings.json      what the folder was made from
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from msmrec.artifacts import InputError, build_once, fingerprint, write_json
from msmrec.columns import DOC_ID, GENRES, MODALITY, RATING, RAW_ITEM_ID, RAW_USER_ID, TIMESTAMP, TITLE, YEAR
from msmrec.data.interactions import RawData
from msmrec.data.sources.base import Source

FORMAT = 1  # raise when the same settings come to give another world

# Modality: how its sentences begin, and its aspects, each of two phrases, the first of which is its name. No commas
# and no full stop in them: `Extractive` reads commas as a list and adds the stop itself.
_WORDS = {
    "narrative": ("The story follows|At its heart lie", """bank robberies/gold vaults; forbidden love/secret kisses;
        murder clues/weary detectives; blood feuds/sworn revenge; court trials/stubborn lawyers; haunted houses/restless
        ghosts; lost expeditions/icy climbs; school days/shy pupils; state conspiracies/leaked files; boxing
        comebacks/title fights; alien signals/first contact; treasure maps/rival pirates"""),
    "visual": ("Every frame shows|The images live by", """black and white/hard shadows; neon colour/glowing signs;
        hand-drawn lines/painted cels; sepia tones/dusty sunlight; handheld shots/shaky closeups; clay puppets/miniature
        models; aerial views/wide horizons; pastel walls/perfect symmetry; computer effects/digital beasts; underwater
        scenes/turquoise haze; candlelit rooms/painterly glow; home video/scratched tape"""),
    "set": ("The action takes place among|It was shot amid", """sand dunes/dry wells; fishing boats/foggy piers; palace
        halls/marble stairs; space stations/airlocks; alpine meadows/snowy passes; subway tunnels/skyscraper roofs; palm
        beaches/coral lagoons; frontier saloons/cattle ranches; muddy trenches/barbed wire; dormitories/chapel pews;
        suburban lawns/shopping malls; castle ramparts/torchlit dungeons"""),
    "audio": ("The soundtrack is driven by|The score combines", """jazz trumpet/brushed drums; techno beats/synthesizer
        loops; full orchestra/soaring violins; country guitar/banjo picking; church organ/boys' choirs; punk
        rock/distorted riffs; solo piano/gentle nocturnes; rapped verses/turntable scratches; tango accordion/bandoneon;
        whale song/ocean swell; sitar drones/tabla patterns; show tunes/tap dancing"""),
    "direction": ("The director favours|The staging depends on", """unbroken takes/patient silences; rapid montage/jump
        cuts; flashbacks/shuffled chapters; newsreel realism/amateurs; dream logic/absurd symbols; slow
        suspense/withheld clues; melodrama/grand gestures; deadpan irony/awkward pauses; staged stunts/acrobatic chases;
        tableaux/cloth backdrops; winking narrators/direct address; improvisation/overlapping chatter"""),
    "acting": ("The actors rely on|The cast impresses with", """quiet restraint/lowered eyes; slapstick falls/rubber
        faces; sudden rage/clenched fists; childlike wonder/innocent laughter; noble poise/haughty stares; seductive
        charm/sly smiles; limping gaits/false scars; nervous tics/stammering; stoic courage/granite jaws; manic
        energy/breathless rants; motherly warmth/soft embraces; robotic detachment/flat tones"""),
    "dialogue": ("The characters speak in|The script is full of", """wisecracks/screwball banter; rhymed verse/couplets;
        street slang/profane insults; legal jargon/sworn statements; moral paradoxes/philosophy;
        dialects/mistranslations; terse commands/military codewords; love letters/romantic vows; lectures/technical
        formulas; folk proverbs/village gossip; slogans/rousing sermons; wordless gestures/long hushes"""),
    "pace": ("The film moves with|Its tempo comes from", """unhurried walks/idle afternoons; breakneck speed/wild
        pursuit; mounting dread/sudden shocks; countdowns/urgent deadlines; epic sprawl/passing decades; short
        episodes/loose anecdotes; waltz steps/musical interludes; ambushes/uneasy lulls; daily rituals/hypnotic cycles;
        highway miles/motel stopovers; training drills/final matches; harvest months/melting winters"""),
    "poster": ("The campaign sells it with|The posters promise", """festival laurels/jury prizes; superheroes/sequel
        hooks; family fun/plush toys; midnight cults/censored artwork; bestsellers/fidelity; true stories/archive
        portraits; star farewells/lifetime awards; shoestring debuts/crowdfunding; double bills/lurid lettering;
        restored classics/fresh prints; streaming hits/viral clips; 3-D spectacle/giant screens"""),
}  # fmt: skip
_ASPECTS = {name: [" ".join(a.split()).split("/") for a in words[1].split(";")] for name, words in _WORDS.items()}
_ENDINGS = "from start to finish|for most of its length|more than anything|to great effect|again and again".split("|")
_TITLE_PARTS = [
    part.split()
    for part in """
    Amber Broken Crimson Crooked Electric Fallen Frozen Hollow Last Midnight Paper Quiet Sacred Seventh Velvet Winter |
    Bridge Carousel Crown Echo Falcon Fountain Gambler Horizon Kingdom Lantern Mirror Orchard Pilgrim Sparrow Violin |
    Bran Cal Dor Em Fal Gor Hal Kes Lor Mar Nor Os Per Ros Sel Tar Var Wen | ber dale don fen holt mere ria ton vik
""".split("|")
]


class World(NamedTuple):
    """What is planted: U users, N items, K modalities of A aspects. Row u is raw user u + 1, row i raw item i + 1."""

    aspect: np.ndarray  # (N, K) int64
    log_popularity: np.ndarray  # (N,) float32
    start: np.ndarray  # (U, K) float32 modality weights at the first choice, rows sum to 1
    end: np.ndarray  # (U, K) float32 at the last one
    likes: np.ndarray  # (U, K, A) bool
    strength: float
    momentum: float

    def weights(self, users: np.ndarray, progress: np.ndarray) -> np.ndarray:
        """(B, K) modality weights of (B,) users who are `progress` (B,) of their way, 0 (first choice) to 1 (last)."""
        share = progress.astype(np.float32)[:, None]
        return np.asarray((1 - share) * self.start[users] + share * self.end[users])

    def logits(self, users: np.ndarray, progress: np.ndarray, last: np.ndarray) -> np.ndarray:
        """(B, N) log odds of each item to be the next choice; `last` (B,) is the item before, -1 for none."""
        weights, k = self.weights(users, progress), np.arange(self.aspect.shape[1])
        value = np.float32(self.strength) * weights[:, :, None] * self.likes[users]
        stay = np.where(last[:, None] >= 0, np.float32(self.momentum) * weights, np.float32(0))
        value[np.arange(len(users))[:, None], k, self.aspect[last]] += stay
        has = np.zeros((*value.shape[1:], len(self.aspect)), np.float32)  # (K, A, N): one product serves all users
        has[k, self.aspect, np.arange(len(self.aspect))[:, None]] = 1
        return np.asarray(value.reshape(len(users), -1) @ has.reshape(-1, len(self.aspect)) + self.log_popularity)


@dataclass
class Simulated(Source):
    """Users who choose films by a few modalities each; for some of them, these change.

    The next film is drawn, never twice, from softmax(strength * sum_k w_k(t) [film's aspect k is liked] + momentum *
    sum_k w_k(t) [film's aspect k is that of the film before] + log popularity), w(t) linear in the number of choices.

    Attributes:
        num_users: U.
        num_items: N, 44 to 30,000.
        mean_interactions: a user, about: 10 and a log-normal rest, cut off at half the films.
        num_modalities: K, the first of narrative, visual, set, audio, direction, acting, dialogue, pace, poster.
        num_aspects: A, values that a modality can take, 3 to 12; a user likes one or two of each modality.
        concentration: of the Dirichlet distribution of modality weights; the less, the more one modality rules.
        drift: share of users whose weights end at another draw than they began.
        strength: of the planted preferences.
        momentum: of staying with the aspects of the film before.
        popularity_exponent: popularity is rank to the minus this.
        seed: of everything.
    """

    num_users: int = 2000
    num_items: int = 600
    mean_interactions: float = 50.0
    num_modalities: int = 6
    num_aspects: int = 12
    concentration: float = 0.35
    drift: float = 0.5
    strength: float = 5.0
    momentum: float = 3.0
    popularity_exponent: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {"num_users": (1, 10**7), "num_items": (44, 30_000), "mean_interactions": (11, self.num_items / 4),
                  "num_modalities": (1, len(_WORDS)), "num_aspects": (3, 12), "concentration": (0.01, 100),
                  "drift": (0, 1), "seed": (0, 2**32)}  # fmt: skip
        for key, (least, most) in limits.items():
            if not least <= vars(self)[key] <= most:
                raise InputError(f"source.{key} must be from {least:g} to {most:g}, not {vars(self)[key]}")

    @property
    def name(self) -> str:
        """'simulated', followed by a fingerprint of the settings where these are not the defaults."""
        return "simulated" if self == Simulated() else f"simulated-{self.fingerprint(Path())[:8]}"

    def fingerprint(self, root: Path) -> str:
        """Depends on the settings."""
        return fingerprint(FORMAT, [float(value) for value in vars(self).values()])

    def folder(self, root: Path) -> Path:
        """The folder with the world's files, written first if it is not there."""
        folder = build_once(root / self.name, self._write)
        if json.loads((folder / "settings.json").read_text())["fingerprint"] != self.fingerprint(root):
            raise InputError(f"{folder}: made by another version; remove the folder to make it again")
        return folder

    def truth(self, root: Path) -> pl.DataFrame:
        """truth.parquet: what was planted, by user and modality."""
        return pl.read_parquet(self.folder(root) / "truth.parquet")

    def read(self, root: Path) -> RawData:
        """Reads the world's files; it knows no genres and nothing of the users."""
        ratings, items = (self.folder(root) / f"{name}.parquet" for name in ("ratings", "items"))
        films = pl.read_parquet(items).with_columns(pl.lit([], pl.List(pl.String)).alias(GENRES))
        return RawData(pl.read_parquet(ratings), films, pl.DataFrame(schema={RAW_USER_ID: pl.Int64}), str(ratings))

    def world(self) -> World:
        """Draws what is planted."""
        rng, size = np.random.default_rng([self.seed, 0]), (self.num_users, self.num_modalities)
        aspect = rng.integers(self.num_aspects, size=(self.num_items, size[1]))
        odds = (-self.popularity_exponent * np.log(rng.permutation(self.num_items) + 1)).astype(np.float32)
        start, other = rng.dirichlet([self.concentration] * size[1], size=(2, size[0])).astype(np.float32)
        end = np.where(rng.random((size[0], 1)) < self.drift, other, start)
        place = rng.random((*size, self.num_aspects)).argsort(-1).argsort(-1)  # a random order of the aspects
        likes = place < rng.integers(1, 3, size=(*size, 1))
        return World(aspect, odds, start, end, likes, self.strength, self.momentum)

    def interactions(self, world: World) -> pl.DataFrame:
        """Lets the users choose: raw_user_id, raw_item_id, rating (1 to 5), timestamp (s); by user, then time."""
        rng = np.random.default_rng([self.seed, 1])
        extra = np.exp(rng.normal(np.log(self.mean_interactions - 10) - 0.5, 1.0, self.num_users))
        length = np.minimum(10 + extra.astype(np.int64), self.num_items // 2)
        order = np.argsort(-length, kind="stable")  # rows below are in it, so that those still choosing stand first
        item = np.full((self.num_users, length.max()), -1)
        seen = np.zeros((self.num_users, self.num_items), np.float32)  # -inf once chosen
        for step in range(item.shape[1]):
            users = order[: (length > step).sum()]
            row = np.arange(len(users))
            last = item[row, step - 1]  # before the first step this is the last column: -1, none
            odds = world.logits(users, step / (length[users] - 1), last) + seen[: len(users)]
            cumulated = np.cumsum(np.exp(odds - odds.max(1, keepdims=True)), axis=1)
            level = cumulated[:, -1:] * (1 - rng.random((len(users), 1), np.float32))  # above 0: never one seen
            item[row, step] = (cumulated >= level).argmax(1)
            seen[row, item[row, step]] = -np.inf
        item[order] = item.copy()
        user, step_of = np.nonzero(item >= 0)
        chosen = item[user, step_of]
        liked = world.likes[user[:, None], np.arange(self.num_modalities), world.aspect[chosen]]
        match: np.ndarray = (world.weights(user, step_of / (length[user] - 1)) * liked).sum(1)
        rating = np.rint(2.4 + 2.2 * match + rng.normal(0, 0.8, len(user))).clip(1, 5).astype(np.float32)
        gap = rng.integers(60, 600, item.shape) + rng.exponential(3e5, item.shape) * (rng.random(item.shape) < 0.2)
        begin = 1_420_070_400 + rng.integers(3 * 365 * 86400, size=(self.num_users, 1))  # in 2015 to 2017
        time = (begin + gap.astype(np.int64).cumsum(1))[user, step_of]
        return pl.DataFrame({RAW_USER_ID: user + 1, RAW_ITEM_ID: chosen + 1, RATING: rating, TIMESTAMP: time})

    def _write(self, folder: Path) -> None:
        world, rng, names = self.world(), np.random.default_rng([self.seed, 2]), list(_WORDS)[: self.num_modalities]
        called = np.array([[_ASPECTS[name][a][0] for a in range(self.num_aspects)] for name in names])  # (K, A)
        self.interactions(world).write_parquet(folder / "ratings.parquet")
        # The catalogue's films, then others; every other one of these has the title of the catalogue's, not the year.
        num, total = self.num_items, self.num_items * 11 // 10
        titles, years = _titles(rng, total), rng.integers(1950, 2020, total)
        titles[num::2] = titles[: len(titles[num::2])]
        years[num::2] = years[: len(years[num::2])] + rng.choice([-20, -10, 10, 20], len(years[num::2]))
        aspect = np.concatenate([world.aspect, rng.integers(self.num_aspects, size=(total - num, len(names)))])
        bare = np.where(rng.random(total) < 0.05, rng.integers(len(names), size=total), -1)  # the text it lacks
        with (folder / "knowledge.jsonl").open("w", encoding="utf-8") as file:
            for n, at in enumerate(rng.permutation(np.flatnonzero(rng.random(total) >= 0.02))):
                texts = {name: _text(rng, name, aspect[at, k]) for k, name in enumerate(names) if k != bare[at]}
                file.write(json.dumps({DOC_ID: f"film-{n}", TITLE: titles[at], YEAR: int(years[at]), **texts}) + "\n")
        items = pl.DataFrame({RAW_ITEM_ID: np.arange(num) + 1, TITLE: titles[:num], YEAR: years[:num].astype(np.int32)})
        items.with_columns(pl.format("{} ({})", TITLE, YEAR).alias(TITLE)).write_parquet(folder / "items.parquet")
        about = _long(RAW_ITEM_ID, num, names, aspect=called[np.arange(len(names)), world.aspect])
        about.write_parquet(folder / "aspects.parquet")
        weights = {"start": world.start, "end": world.end, "mean": (world.start + world.end) / 2}
        likes = pl.Series("likes", [called[k, liked].tolist() for user in world.likes for k, liked in enumerate(user)])
        _long(RAW_USER_ID, self.num_users, names, **weights).with_columns(likes).write_parquet(folder / "truth.parquet")
        write_json(folder / "settings.json", {"fingerprint": self.fingerprint(folder), **vars(self)})


def _long(row_id: str, rows: int, names: list[str], **tables: np.ndarray) -> pl.DataFrame:
    """(R, K) tables as columns; rows are numbered from 1."""
    ids = {row_id: np.arange(rows).repeat(len(names)) + 1, MODALITY: names * rows}
    return pl.DataFrame({**ids, **{name: table.ravel() for name, table in tables.items()}})


def _titles(rng: np.random.Generator, count: int) -> list[str]:
    """Different titles."""
    sizes = [len(part) for part in _TITLE_PARTS]
    rows = np.array(np.unravel_index(rng.choice(int(np.prod(sizes)), count, replace=False), sizes)).T.tolist()
    return ["The {} {} of {}{}".format(*(part[k] for part, k in zip(_TITLE_PARTS, row, strict=True))) for row in rows]


def _text(rng: np.random.Generator, modality: str, aspect: int) -> str:
    """A sentence of 8 to 20 words about one aspect of a modality."""
    beginning, (one, other) = rng.choice(_WORDS[modality][0].split("|")), rng.permutation(_ASPECTS[modality][aspect])
    return f"{beginning} {one} {rng.choice(['and', 'along with', 'next to'])} {other} {rng.choice(_ENDINGS)}"
