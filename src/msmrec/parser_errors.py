"""What the parser says of a mistake in a config, in a sentence.

jsonargparse reports a value in a nested constructor with everything that it tried: the unions, their members, the dump
of what was given. Here it becomes `model.text.noise.kind: swp is none of swap, truncate, corrupt`.
"""

import contextlib
import difflib
import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from msmrec import classes
from msmrec.artifacts import InputError, one_line

KEY = re.compile(r'Parser key "([^"]+)"')
OWNER = re.compile(r"Problem with given class_path '([^']+)'")
BASE = re.compile(r"Subtypes: \[(?:<class '([^']+)'>)?")
GROUPS = {
    "trainer": "lightning.pytorch.Trainer",
    "data": "msmrec.data.datamodule.RecDataModule",
    "data.protocol": "msmrec.data.prepare.SplitProtocol",
    "checkpoint": "lightning.pytorch.callbacks.ModelCheckpoint",
    "early_stopping": "lightning.pytorch.callbacks.EarlyStopping",
}
TOP = ["model", "data", "trainer", "seed_everything", "run_dir", "runs", "needs", "ckpt_path", "upload_checkpoint"]
TOP += ["checkpoint", "early_stopping"]
LEAVES = (
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<member>[^']+)'"),
    re.compile(r"unrecognized arguments: --(?P<argument>[\w.+]+)"),
    re.compile(r"Unexpected config: (?P<argument>[\w.]+)"),
    re.compile(r"Option '(?P<option>[^']+)' is not accepted"),
    re.compile(r"Expected a dot import path string: (?P<unknown>\S+)"),
    re.compile(r"Problem with given class_path '(?P<path>[^']+)': (?P<missing>No module|module '[^']+' has no attr)"),
    re.compile(r"(?P<kind>Import path does not correspond to a subclass of \w+) .*Given value: (?P<value>\S+)"),
    re.compile(r"the following arguments are required: (?P<required>[\w., ]+?)(?= - Exp|$)"),
    re.compile(r"(?P<nothing>Unable to load config 'null')"),
    re.compile(r"Expected an instantiatable class, but (?P<abstract>[\w.]+) is abstract"),
    re.compile(r"'\w+' object has no attribute '(?P<keyless>keys)'"),
    re.compile(
        r"Errors: .*?(?P<choices>(?:- Expected a typing\.Literal\[[^]]*\] )+)"
        r".*?Given value: (?P<value>.*?)(?= - Expected a |$)"
    ),
    re.compile(r"Expected a typing\.Literal\[(?P<choices>.*?)\]\. Got value: (?P<value>.*?)(?= - Expected a |$)"),
    re.compile(r"Expected a (?:<class '(?P<type>[\w.]+)'>|(?P<shape>[\w ]+))\. Got value: (?P<value>.*?)(?= - Exp|$)"),
    re.compile(r"Errors: - Expected a (?P<shape>tuple with \d+ elements) .*Given value: (?P<value>.*)$"),
    re.compile(r"Errors: (?P<tried>(?:- Expected a <class '\w+'> )+)Given value type: .* Given value: (?P<value>.*)$"),
)


def explain(error: Exception) -> str:
    """The key, what is wrong with it and what would be right; the parser's own words where it says something else."""
    text = one_line(error)
    found = [leaf for pattern in LEAVES if (leaf := pattern.search(text))]
    if not found:
        return text
    leaf = min(found, key=_start)
    before, said = text[: _start(leaf)], leaf.groupdict()
    key, owner = ".".join(KEY.findall(before)), ["", *OWNER.findall(before)][-1]
    if not owner and {"member", "argument", "option"} & set(said):
        key = f"{said['group']}.{said['member']}" if "member" in said else said.get("argument") or said["option"]
        group, _, member = key.rpartition(".")
        if group not in GROUPS:
            return f"{key}: there is no such key{_instead(key.partition('.')[0], TOP)}"
        return f"{key}: there is no such key{_instead(member, _options(GROUPS[group]))}"
    if "option" in said:
        return f"{key}: {owner.rpartition('.')[2]} has no {said['option']}{_instead(said['option'], _options(owner))}"
    if "unknown" in said:
        known = ", ".join(_subclasses(["", *BASE.findall(before)][-1]))
        return f"{key}: there is no {said['unknown']}" + (f"; known: {known}" if known else "")
    if "missing" in said:
        module, _, name = said["path"].rpartition(".")
        wrong = f"has no {name}" if said["missing"].startswith("module") else "cannot be imported"
        return f"{key}: {module} {wrong}; a class of your own is named by its module, which PYTHONPATH must lead to"
    if "kind" in said:
        return f"{key}: {said['value']} is no {said['kind'].rpartition(' ')[2]}"
    if "abstract" in said:
        return f"{key}: needs class_path, which is one of {', '.join(_subclasses(said['abstract']))}"
    if "keyless" in said:
        return f"{key}.init_args: no keys and values; indent some beneath it, or leave it out"
    if "required" in said and not key:
        return f"{said['required']}: missing; name a config that has it, or give --{said['required']}"
    if "required" in said:
        return f"{key}: {owner.rpartition('.')[2]} needs {said['required']}"
    if "nothing" in said:
        return f"{key}: null is none of its values"
    if "choices" in said:
        choices = re.sub(r"(- Expected a typing\.Literal)?[]'[]+( -)?", "", said["choices"])
        return f"{key}: {said['value']} is none of {choices.strip()}"
    kinds = " or ".join(re.findall(r"<class '(\w+)'>", said.get("tried") or "")) or said.get("type") or said["shape"]
    return f"{key}: {said['value']} is no {kinds}"


def refuse_empty(path: str, given: Mapping[str, Any]) -> None:
    """Refuses a model's field that was left empty, which the parser lets through: `dropout:` with nothing behind it.

    Args:
        path: of the model's class. given: its init_args.

    Raises:
        InputError: a field is null whose type knows no null.
    """
    known: dict[str, Any] = {}
    for one in reversed(inspect.getmro(_named(path) or object)):
        if "__init__" in vars(one):
            with contextlib.suppress(NameError):  # types that a class of the user's own imports for the checker alone
                known |= get_type_hints(vars(one)["__init__"])
            fields = inspect.signature(vars(one)["__init__"]).parameters.values()
            known |= {field.name: None for field in fields if field.default is None}
    known |= {"num_items": None, "num_users": None}  # the data gives these
    for name, kind in known.items():
        if name in given and given[name] is None and kind not in (None, Any) and type(None) not in get_args(kind):
            raise InputError(f"model.{name}: null is none of its values; give one, or leave the line out")


def _start(match: re.Match[str]) -> int:
    """Where what is wrong is named; some patterns begin at the report around it."""
    return min(match.start(name) for name, value in match.groupdict().items() if value is not None)


def _named(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name, None) if module else None
    return found if isinstance(found, type) else None


def _options(path: str) -> list[str]:
    """Parameters of a class's constructor and, where it passes them on, of its bases'."""
    mro = inspect.getmro(owner) if (owner := _named(path)) else ()
    names = [name for c in mro if "__init__" in vars(c) for name in inspect.signature(vars(c)["__init__"]).parameters]
    return [name for name in dict.fromkeys(names) if name not in ("self", "args", "kwargs")]


def _instead(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; it has: {', '.join(known)}" if known else ""


def _subclasses(path: str) -> list[str]:
    """Names of the classes that can be given where this one is asked for."""
    waiting, names = [base] if (base := _named(path)) else [], []
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        names += [] if inspect.isabstract(one) else [one.__name__]
    return sorted({name for name in names if hasattr(classes, name)} or set(names))
