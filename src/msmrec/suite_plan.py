"""What a suite has to do before its table: each line with each seed, whether it can run, and how long that takes."""

import json
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from msmrec.arguments import CONFIGS, find_config, joined, layers, needs_of, overrides
from msmrec.artifacts import InputError
from msmrec.run_folder import PLACES, Run, flat, read_run
from msmrec.suite_file import Line, Suite, stated_minutes

BASE = CONFIGS / "base.yaml"


@dataclass
class Task:
    """A line with one seed."""

    line: Line
    seed: int
    folder: Path
    args: list[str]
    state: str
    """finished, to run, or why it cannot run; in the end perhaps why it failed"""
    minutes: float | None
    source: str
    """where the minutes come from"""


def plan(suite: Suite, lines: Sequence[Line], seeds: Sequence[int], runs: Path, more: Sequence[str]) -> list[Task]:
    """What there is to do, seed by seed.

    Args:
        lines: of the suite. more: overrides of all.

    Raises:
        InputError: a finished run in a line's folder is another one.
    """
    missing = {need: lacks(need) for need in dict.fromkeys(need for line in lines for need in line.needs)}
    tasks = []
    for seed in seeds:
        for line in lines:
            folder, args = runs / line.name / f"seed={seed}", [*line.args, *more]
            reasons = [str(missing[need]) for need in line.needs if missing[need]]
            state = f"skipped: {', '.join(reasons)}" if reasons else "to run"
            if (folder / "metrics.json").is_file():
                _refuse_another(read_run(folder), args, line)
                state = "finished"
            minutes, source = _expected(line.name, runs, line.minutes, suite.path.name, line.configs, args)
            tasks.append(Task(line, seed, folder, args, state, minutes, source))
    return tasks


def upstream(tasks: Iterable[Task], runs: Path) -> dict[Path, tuple[float | None, str]]:
    """Runs that those tasks need and that are not there, with the minutes they take and where that is known from."""
    found: dict[Path, tuple[float | None, str]] = {}
    for task in tasks:
        waiting = _needs(task.line.configs, task.args)
        while waiting:
            configs = [Path(find_config(part)) for part in layers(waiting.pop())]
            name = joined(configs)
            folder = runs / name / f"seed={task.seed}"
            if not (folder / "metrics.json").is_file() and folder not in found:
                found[folder] = _expected(name, runs, None, "", configs)
                waiting += _needs(configs, [])
    own = {task.folder for task in tasks}
    return {folder: expected for folder, expected in found.items() if folder not in own}


def _needs(configs: Sequence[Path], args: Sequence[str]) -> list[str]:
    given = needs_of(configs)
    for key, value in overrides(args):
        given = list(value) if key == "needs" else [*given, value] if key == "needs+" else given
    return given


def _refuse_another(run: Run, args: Sequence[str], line: Line) -> None:
    config = joined(line.configs)
    wrong = f"config {run.record['config']}, not {config}" if run.record["config"] != config else ""
    for key, value in overrides(args):
        for name, wanted in (flat({key: value}) if isinstance(value, dict) else {key: value}).items():
            counts = name.startswith(("model.", "data.")) or name == "trainer.max_epochs"
            if not counts or name in PLACES or name not in run.config:
                continue
            has = run.config[name]
            if has != wanted and not (isinstance(has, str) and has.endswith(f".{wanted}")):  # a class by its short name
                wrong = f"{name} {has}, not {wanted}"
    if wrong:
        raise InputError(f"{run.folder} holds a run with {wrong}; remove it, or give another folder by --runs")


def _expected(
    name: str, runs: Path, stated: float | None, file: str, configs: Sequence[Path], args: Sequence[str] = ()
) -> tuple[float | None, str]:
    """Minutes of a run and where they come from: its other seeds, its line, its config's header."""
    seconds = [
        json.loads(path.read_text()).get("train", {}).get("seconds") for path in (runs / name).glob("*/metrics.json")
    ]
    if known := [s for s in seconds if s]:
        return sum(known) / len(known) / 60, f"{len(known)} earlier run{'s' * (len(known) > 1)}"
    if stated is not None:
        return stated, file
    if len(configs) > 1:  # what is laid over it may be another dataset
        return None, "unknown"
    comment = " ".join(text.lstrip("# ") for text in configs[0].read_text().splitlines() if text.startswith("#"))
    header = stated_minutes(comment)
    given = dict(overrides(args)).get("trainer.max_epochs")
    if header is not None and given is None:
        return header, f"the head of {configs[0].name}"
    if header is None or not isinstance(given, int) or given < 1:  # 0: an evaluation, of which the head says nothing
        return None, "unknown"
    own = [flat(yaml.safe_load(path.read_text())).get("trainer.max_epochs") for path in (configs[0], BASE)]
    epochs = next(number for number in own if number is not None)
    return header * given / epochs, f"the head of {configs[0].name}, {given} of {epochs} epochs"


def lacks(need: str) -> str | None:
    """Why a need is not met here, or None."""
    if need == "gpu":
        import torch

        return None if torch.cuda.is_available() else "no GPU"
    if need == "key":
        there = os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
        return None if there else "no OPENAI_API_KEY or OPENAI_BASE_URL"
    kind, name = need.split()
    if kind == "host":
        return None if _reachable(name) else f"{name} is out of reach"
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(name, local_files_only=True)
        return None
    except LocalEntryNotFoundError:
        hub = urlsplit(constants.ENDPOINT).hostname or ""
        reachable = not constants.HF_HUB_OFFLINE and _reachable(hub)
        return None if reachable else f"no weights of {name}, and the model hub is out of reach"


def _reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=5).close()
        return True
    except OSError:
        return False


def describe(tasks: Sequence[Task], first: dict[Path, tuple[float | None, str]]) -> str:
    """The plan as text."""
    rows = [("run", "state", "expected", "by")]
    for folder, (minutes, by) in first.items():
        rows.append((f"{folder.parent.name}/{folder.name}", "needed, trained first", clock(minutes), by))
    for task in tasks:
        todo = task.state == "to run"
        name = f"{task.line.name}/seed={task.seed}"
        rows.append((name, task.state, clock(task.minutes) if todo else "", task.source if todo else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3])).rstrip() for row in rows]
    times = [task.minutes for task in tasks if task.state == "to run"] + [minutes for minutes, _ in first.values()]
    known = [minutes for minutes in times if minutes is not None]
    unknown = f"{len(times) - len(known)} of unknown time" if len(known) < len(times) else ""
    about = f"about {clock(sum(known))}" if known or not times else ""
    finished = sum(task.state == "finished" for task in tasks)
    lines.append(
        f"{len(times)} to run, {finished} finished, {sum(t.state.startswith('skipped') for t in tasks)} skipped;"
        f" {', and '.join(filter(None, (about, unknown)))}"
    )
    return "\n".join(lines)


def clock(minutes: float | None) -> str:
    """12 s, 24 min, 2.5 h; ? where it is not known."""
    if minutes is None:
        return "?"
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
