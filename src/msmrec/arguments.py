"""What a command line says before a parser reads it: configs by their bare names, and overrides."""

import difflib
import itertools
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from msmrec.artifacts import InputError

# The repository's; a config elsewhere is named by its path. Installed without the repository, configs/ of the caller.
CONFIGS = next((d for d in (Path(__file__).parents[2] / "configs", Path("configs")) if d.is_dir()), Path("configs"))
_SUFFIXES = (".yaml", ".yml")  # what else stands after a dot is part of a config's name: sasrec.v2


def arguments(args: Sequence[str]) -> list[str]:
    """The words of a command line, every config as a path that exists.

    Raises:
        InputError: there is no such config, or it is no YAML of keys and values.
    """
    words = [find_config(a) for a in _split_equals(args)]
    for before, word in itertools.pairwise(words):
        if before == "--config":
            _check(Path(word))
    return words


def _check(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"config {path}{where}: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"config {path}: {'is empty' if content is None else 'holds no keys'}; see configs/ for some")


def joined(configs: Sequence[object]) -> str:
    """What a run of these configs is called: their names, joined by "+"."""
    return "+".join(path.stem if path.suffix in _SUFFIXES else path.name for path in map(Path, map(str, configs)))


def layers(name: str) -> list[str]:
    """The configs of "a+b": b laid over a, each as the name of a file, with or without .yaml before."""
    return [part if Path(part).suffix in _SUFFIXES else f"{part}.yaml" for part in name.split("+")]


def config_words(name: str) -> list[str]:
    """What a command line says of "a+b"."""
    return [word for part in layers(name) for word in ("--config", part)]


def overrides(args: Sequence[str]) -> list[tuple[str, Any]]:
    """Keys and values of --key=value and --key value, but for configs."""
    pairs: list[tuple[str, Any]] = []
    words = list(args)
    while words:
        key, equals, value = words.pop(0).partition("=")
        if not equals and words:
            value = words.pop(0)
        if key != "--config":
            pairs.append((key.removeprefix("--"), _value(value)))
    return pairs


def _value(text: str) -> Any:
    for read in (json.loads, float, yaml.safe_load):
        try:
            return read(text)
        except (ValueError, yaml.YAMLError):
            continue
    return text


def _split_equals(args: Sequence[str]) -> list[str]:
    return [part for a in args for part in (a.split("=", 1) if a.startswith("--config=") else [a])]


def needs_of(configs: Sequence[str | Path]) -> list[str]:
    """What configs laid over each other need: the last that says so counts."""
    given = [content["needs"] for path in configs if "needs" in (content := yaml.safe_load(Path(path).read_text()))]
    return list(given[-1] or []) if given else []


def find_config(argument: str) -> str:
    """A bare name of a YAML file is looked for in configs/.

    Raises:
        InputError: it is not there either.
    """
    path = Path(argument)
    if path.suffix in _SUFFIXES and not path.exists() and not argument.startswith("-"):
        if found := next((p for p in (CONFIGS / path, CONFIGS / path.name) if p.exists()), None):
            return str(found)
        near = difflib.get_close_matches(argument, _known(), 1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"config {argument}: neither here nor in {CONFIGS}/; {guess}train.py --help lists them")
    return argument


def headlines() -> str:
    """The configs, one a line, each with the first sentence of its comment, shortened to a line."""
    lines, column = [], max(map(len, _known())) + 2
    for name in _known():
        comment = itertools.takewhile(lambda line: line.startswith("#"), (CONFIGS / name).read_text().splitlines())
        sentence = re.split(r"(?<! al)[.:;] ", " ".join(line.lstrip("# ") for line in comment))[0]
        lines.append(f"    {name:<{column}}{textwrap.shorten(sentence, 116 - column, placeholder=' ...')}")
    return "\n".join(lines)


def _known() -> list[str]:
    names = [str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")]
    return sorted(name for name in names if name != "base.yaml" and not name.startswith("sweeps"))
