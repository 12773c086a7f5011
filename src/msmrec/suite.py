"""A paper's table as one command: the runs of a file one after the other, then the table that `compare` makes of them.

    python -m msmrec suite msmrec_table4 --datasets ml-100k --seeds 0,1,2 [--dry-run] [overrides of all]

A suite is a file of configs/suites/, with a run a line and seed in runs/NAME/seed=SEED:

    # metrics: hit_rate@10, ndcg@10
    # baseline: sasrec_ml1m, sasrec_ml100k
    sasrec_ml1m   sasrec_ml1m.yaml
    msmrec_ada    msmrec_ml1m.yaml --config text/ada_002.yaml  # 50 min; needs key

A NAME means the same run in all suites, so they share runs, and with train.py those named like their config. Times are
of a line alone, on one thread. A line that needs a gpu, a key (OPENAI_API_KEY or OPENAI_BASE_URL), the weights of a
model or a host is skipped where that is not there. The same file runs as an array: slurm/ablations.sbatch.
"""

import fnmatch
import json
import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from msmrec.arguments import CONFIGS, find_config, joined, layers, overrides
from msmrec.artifacts import InputError
from msmrec.command import train_in_child
from msmrec.evaluation.compare import Row, compare
from msmrec.evaluation.comparison_table import render
from msmrec.run_folder import PLACES, Run, flat, read_run
from msmrec.suite_file import Line, Suite, read_suite, stated_minutes

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
        InputError: a finished run in a line's folder is another one, or a line has no dataset.
    """
    for line in lines:
        line.dataset  # noqa: B018 (before hours of training, not in the tables after them)
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
    given: list[str] = []
    for path in configs:
        given = yaml.safe_load(path.read_text()).get("needs", given)
    for key, value in overrides(args):
        given = value if key == "needs" else [*given, value] if key == "needs+" else given
    return list(given)


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


def run(task: Task, runs: Path) -> None:
    """Trains in a process of its own; `task.state` then says what came of it. What it prints goes to suite.log."""
    task.folder.mkdir(parents=True, exist_ok=True)
    place = [f"--seed_everything={task.seed}", f"--run_dir={task.folder}", f"--runs={runs}"]
    log = task.folder / "suite.log"
    with log.open("a") as file:
        status = train_in_child([*task.args, *place], stdout=file, stderr=subprocess.STDOUT)
    if (task.folder / "metrics.json").is_file():
        task.state = "finished"
    else:
        said = [text for text in log.read_text(errors="replace").splitlines() if text.strip()]
        last = (said or ["it said nothing"])[-1].strip().rpartition("\r")[2][:300]
        task.state = f"failed (exit status {status}): {last}"


def table(suite: Suite, tasks: Sequence[Task]) -> str:
    """The suite's table, one for each dataset, with a row for each line: numbers, or why there are none."""
    parts = []
    for dataset in dict.fromkeys(task.line.dataset for task in tasks):
        mine = [task for task in tasks if task.line.dataset == dataset]
        done = [task for task in mine if task.state == "finished"]
        gaps = [task for task in mine if task.state != "finished" and task.line not in [t.line for t in done]]
        parts.append(f"\n## {suite.path.stem}, {dataset}\n")
        if not done:
            parts += [f"{task.line.name}, seed {task.seed}: {task.state}" for task in gaps]
            continue
        names = {task.line.name for task in done}
        baseline = next((name for name in suite.baseline if name.partition(": ")[0] in names), None)
        try:
            made = compare([task.folder for task in done], suite.metrics, baseline, names="folder")
        except InputError as error:
            parts.append(f"no table: {error}")
            continue
        why = {task.line.name: task.state for task in gaps}
        made.rows += [Row(name, 0, [None] * len(made.metrics), state) for name, state in why.items()]
        parts += [render(made, "markdown"), ""]
        parts += [f"warning: {warning}" for warning in made.warnings]
        command = ["python -m msmrec compare --names folder", *dict.fromkeys(str(t.folder.parent) for t in done)]
        command += ["--metrics", ",".join(made.metrics), *(["--baseline", shlex.quote(baseline)] if baseline else [])]
        parts.append(f"again, as LaTeX or a plot: {' '.join(command)}")
    return "\n".join(parts)


def suite(
    name: str, datasets: str = "", rows: str = "", seeds: str = "0", runs: Path = Path("runs"), dry_run: bool = False,
    more: Sequence[str] = (),
) -> None:  # fmt: skip
    """Prints the plan, runs what is not finished, prints the tables.

    Args:
        name: see `read_suite`.
        datasets, rows: restrict the lines, by names of datasets and patterns of names, with commas.
        seeds: with commas. runs: folder of the runs. dry_run: stop after the plan. more: overrides of all lines.

    Raises:
        InputError: a restriction names nothing, or a run failed; the tables are printed all the same.
    """
    chosen = read_suite(name)
    lines = _restrict(chosen, datasets, rows)
    if not re.fullmatch(r"\d+(,\d+)*", seeds):
        raise InputError(f"--seeds {seeds}: give whole numbers with commas, such as 0,1,2")
    tasks = plan(chosen, lines, [int(seed) for seed in seeds.split(",")], runs, more)
    todo = [task for task in tasks if task.state == "to run"]
    print(describe(tasks, upstream(todo, runs)), flush=True)
    if dry_run:
        return
    for number, task in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {task.folder} ... ", end="", flush=True)
        begun = time.perf_counter()
        run(task, runs)
        print(f"{task.state}, {_clock((time.perf_counter() - begun) / 60)}", flush=True)
    print(table(chosen, tasks))
    if failed := [task for task in todo if task.state != "finished"]:
        logs = ", ".join(str(task.folder / "suite.log") for task in failed)
        raise InputError(f"{len(failed)} of {len(todo)} runs failed: see {logs}; the same command runs them again")


def _restrict(chosen: Suite, datasets: str, rows: str) -> list[Line]:
    lines = chosen.lines
    if datasets:
        known = list(dict.fromkeys(line.dataset for line in lines))
        if unknown := set(datasets.split(",")) - set(known):
            raise InputError(
                f"--datasets {sorted(unknown)[0]}: not in {chosen.path.stem}, which has {', '.join(known)}"
            )
        lines = [line for line in lines if line.dataset in datasets.split(",")]
    for pattern in filter(None, rows.split(",")):
        if not fnmatch.filter([line.name for line in lines], pattern):
            raise InputError(f"--rows {pattern}: no such row; rows: {', '.join(line.name for line in lines)}")
    return [line for line in lines if not rows or any(fnmatch.fnmatch(line.name, p) for p in rows.split(","))]


def describe(tasks: Sequence[Task], first: dict[Path, tuple[float | None, str]]) -> str:
    """The plan as text."""
    rows = [("run", "state", "expected", "by")]
    for folder, (minutes, by) in first.items():
        rows.append((f"{folder.parent.name}/{folder.name}", "needed, trained first", _clock(minutes), by))
    for task in tasks:
        todo = task.state == "to run"
        name = f"{task.line.name}/seed={task.seed}"
        rows.append((name, task.state, _clock(task.minutes) if todo else "", task.source if todo else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3])).rstrip() for row in rows]
    times = [task.minutes for task in tasks if task.state == "to run"] + [minutes for minutes, _ in first.values()]
    known = [minutes for minutes in times if minutes is not None]
    unknown = f"{len(times) - len(known)} of unknown time" if len(known) < len(times) else ""
    about = f"about {_clock(sum(known))}" if known or not times else ""
    finished = sum(task.state == "finished" for task in tasks)
    lines.append(
        f"{len(times)} to run, {finished} finished, {sum(t.state.startswith('skipped') for t in tasks)} skipped;"
        f" {', and '.join(filter(None, (about, unknown)))}"
    )
    return "\n".join(lines)


def _clock(minutes: float | None) -> str:
    if minutes is None:
        return "?"
    return (
        f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
    )
