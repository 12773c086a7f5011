"""A page as data (sections of prose, tables and figures), and the one file that it becomes.

The file holds everything it shows: BokehJS, styles, numbers. It opens from disk, asks the network for nothing, and its
tables can be read where scripts are off.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from polars.exceptions import PolarsError

from msmrec.artifacts import InputError, atomic_file

HOW_TO_INSTALL = "pip install 'msmrec[report]'"


class Missing(Exception):
    """A section has nothing to show; the message is one sentence that says what is missing and what would bring it."""


@dataclass
class Prose:
    """A paragraph."""

    text: str
    kind: str = "prose"


@dataclass
class Code:
    """Text shown as it stands, folded away under its title."""

    title: str
    text: str
    open: bool = False
    kind: str = "code"


@dataclass
class Table:
    """Rows of text under a heading; columns named in `numbers` are aligned to the right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    folded: bool = False
    marked: frozenset[int] = frozenset()
    """rows that stand out"""
    kind: str = "table"


@dataclass
class Figure:
    """A plot: the marks that page.js draws (msmrec.report.figures makes them), and what a reader gets without them."""

    title: str
    marks: list[dict[str, Any]]
    x: dict[str, Any]
    y: dict[str, Any]
    alt: str
    """what the plot shows, in a sentence"""
    table: Table | None = None
    note: str = ""
    height: int = 300
    """CSS pixels"""
    choices: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    """marks drawn instead, by what is chosen in the two lists of the figure's row"""
    shared: dict[str, list[str]] = field(default_factory=dict)
    """lists that marks name with '#': texts that many of them show"""
    kind: str = "figure"


@dataclass
class Row:
    """Figures beside each other where there is room, and what there is to choose for all of them."""

    figures: list[Figure]
    choices: tuple[str, str] = ("", "")
    """names of the two lists"""
    kind: str = "row"


@dataclass
class Group:
    """Blocks under a smaller heading."""

    title: str
    blocks: "list[Block]"
    kind: str = "group"


Block = Prose | Code | Table | Figure | Row | Group


@dataclass
class Section:
    """A part of the page that its table of contents names."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """Where links to it lead."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@dataclass
class Page:
    """What is written."""

    title: str
    subtitle: str
    tiles: list[tuple[str, str, str]]
    """headline numbers: name, number, what stands beneath"""
    sections: list[Section]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """title of a section, and the sentence that says what is missing"""
    broken: list[tuple[str, str]] = field(default_factory=list)
    """those of them that are there and could not be read"""

    def add(self, title: str, make: Callable[[], list[Block]]) -> None:
        """Adds a section, or the sentence that says why it is not there."""
        try:
            self.sections.append(Section(title, make()))
        except Missing as missing:
            self.left_out.append((title, str(missing)))
        # A file that is cut short or of an older layout; the rest of the page is worth having.
        except (InputError, OSError, ValueError, LookupError, TypeError, AttributeError, PolarsError) as error:
            said = str(error).splitlines()[0][:300] if str(error) else ""
            kind = (
                "" if isinstance(error, InputError) else f"a file of the run could not be read: {type(error).__name__} "
            )
            self.broken.append((title, kind + said))
            self.left_out.append(self.broken[-1])


def write_page(page: Page, path: Path) -> None:
    """Writes the page as one HTML file.

    Raises:
        InputError: what draws it is not installed.
    """
    if lacking := [name for name in ("jinja2", "bokeh") if find_spec(name) is None]:
        raise InputError(f"no page without {' and '.join(lacking)}: {HOW_TO_INSTALL}")
    import jinja2

    here = files("msmrec.report")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["json_script"] = _json_script
    template = environment.from_string((here / "page.html").read_text())
    has_figures = any(_figures(section.blocks) for section in page.sections)
    library = [(_scripts() / name).read_text() for name in ("bokeh.min.js", "bokeh-api.min.js") if has_figures]
    html = template.render(
        page=page,
        style=_verbatim((here / "page.css").read_text()),
        script=_verbatim((here / "page.js").read_text()),
        library=[_verbatim(part) for part in library],
    )
    with atomic_file(path) as temporary:
        temporary.write_text(html)


def _scripts() -> Path:
    """BokehJS as the package brings it; importing the package would cost a second and is not needed."""
    found = find_spec("bokeh")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "server" / "static" / "js"


def _figures(blocks: Sequence[Block]) -> bool:
    return any(isinstance(b, Figure | Row) or (isinstance(b, Group) and _figures(b.blocks)) for b in blocks)


def _verbatim(source: str) -> Any:
    """Our own and the library's source, which the template must not escape."""
    from markupsafe import Markup

    return Markup(source.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _json_script(figure: Figure) -> Any:
    """A figure as JSON that can stand inside a script element whatever its strings hold."""
    from markupsafe import Markup

    keys = ("marks", "x", "y", "height", "choices", "shared")
    spec = {key: value for key in keys if (value := getattr(figure, key))}
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))
