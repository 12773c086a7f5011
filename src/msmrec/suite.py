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
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from msmrec.artifacts import InputError
from msmrec.command import train_in_child
from msmrec.evaluation.compare import Row, compare
from msmrec.evaluation.comparison_table import render
from msmrec.suite_file import Line, Suite, read_suite
from msmrec.suite_plan import Task, clock, describe, plan, upstream


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
        print(f"{task.state}, {clock((time.perf_counter() - begun) / 60)}", flush=True)
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
