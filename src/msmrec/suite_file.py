"""The file of a suite, a run a line with its expected time and what it needs; suite.py shows how it looks."""

import inspect
import itertools
import pkgutil
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from msmrec import classes
from msmrec.arguments import CONFIGS, arguments
from msmrec.artifacts import InputError

UNITS = {"s": 1 / 60, "second": 1 / 60, "min": 1.0, "minute": 1.0, "h": 60.0, "hour": 60.0}
TIME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) (second|minute|hour|min|h|s)s?\b")


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    name: str
    args: tuple[str, ...]
    """--config CONFIG and overrides"""
    configs: tuple[Path, ...]
    """of `args`: its config, and those laid over it"""
    dataset: str
    """name of the dataset, as its configs say together"""
    minutes: float | None
    """as stated in the file"""
    needs: tuple[str, ...]
    """gpu, key, weights MODEL, host NAME"""


@dataclass(frozen=True)
class Suite:
    """A file of lines."""

    path: Path
    lines: list[Line]
    metrics: list[str] = field(default_factory=list)
    baseline: list[str] = field(default_factory=list)
    """names; a table's is the first that it has"""


def read_suite(name: str) -> Suite:
    """Reads a suite of configs/suites/ by its name, or another file by its path.

    Raises:
        InputError: there is none, or a line of it cannot be read.
    """
    folder = CONFIGS / "suites"
    path = next((p for p in (folder / f"{name}.txt", Path(name)) if p.is_file()), None)
    if path is None:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.txt")))
        raise InputError(f"suite {name}: neither in {folder} nor a file; known: {known}")
    suite = Suite(path, [])
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text in UTF-8 ({error}); a suite is lines of NAME CONFIG [overrides]") from None
    for number, text in enumerate(content.splitlines(), 1):
        if head := re.match(r"\s*#\s*(metrics|baseline):(.*)", text):
            getattr(suite, head[1]).extend(word.strip() for word in head[2].split(",") if word.strip())
        if not re.match(r"\s*(#|$)", text):
            suite.lines.append(_line(text, f"{path}:{number}"))
            if suite.lines[-1].name in [line.name for line in suite.lines[:-1]]:
                raise InputError(f"{path}:{number}: a second line named {suite.lines[-1].name}")
    if not suite.lines:
        raise InputError(f"{path}: no lines; a line is NAME CONFIG [overrides]")
    return suite


def _line(text: str, where: str) -> Line:
    command, _, comment = text.partition(" # ")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"{where}: {error}; quotes work as in a shell") from None
    if len(words) < 2:
        raise InputError(f"{where}: {words[0]} has no config; a line is NAME CONFIG [overrides]")
    stated, _, needs = comment.partition("needs ")
    parts = [need.split() for need in needs.split(",") if need.strip()]
    if unknown := [part for part in parts if {"gpu": 1, "key": 1, "weights": 2, "host": 2}.get(part[0]) != len(part)]:
        raise InputError(f"{where}: needs {' '.join(unknown[0])}; known: gpu, key, weights MODEL, host NAME")
    args = ("--config", *words[1:])
    try:
        configs = tuple(Path(b) for a, b in itertools.pairwise(arguments(args)) if a == "--config")  # that can be read
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    needed = tuple(" ".join(part) for part in parts)
    return Line(words[0], args, configs, _dataset(words[0], configs), stated_minutes(stated), needed)


def _dataset(name: str, configs: Sequence[Path]) -> str:
    """Name of the dataset that a line's configs name together.

    Raises:
        InputError: they name no source, or one that cannot be made.
    """
    path, args = "", dict[str, Any]()
    try:
        for config in configs:
            source = (yaml.safe_load(config.read_text()).get("data") or {}).get("source") or {}
            source = {"class_path": source} if isinstance(source, str) else source
            if source.get("class_path", path) != path:  # keeps what it takes as well, as the parser does
                path = source["class_path"]
                made = getattr(classes, path, None) or pkgutil.resolve_name(path)
                args = {key: value for key, value in args.items() if key in inspect.signature(made).parameters}
            args |= source.get("init_args") or {}
        if path:
            return str(made(**args).name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{name}: data.source {path}: {error}; mend {configs[-1]}") from None
    raise InputError(f"{name}: no data.source in {configs[0]}; tables are by dataset, so say it there")


def stated_minutes(text: str) -> float | None:
    """The first time that a text names: "24 to 50 minutes" is 50."""
    found = TIME.search(text)
    return float(found[1]) * UNITS[found[2]] if found else None
