"""The scripts in slurm/: what they say and start, and, where SLURM is installed, what comes of it on a real one."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.slurm_cluster import cluster
from tests.tiny_configs import TINY_DATA, tiny_config, tiny_text

from msmrec.arguments import CONFIGS
from msmrec.cli import build
from msmrec.evaluation.slices import compare_slices
from msmrec.finished_run import evaluate

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT / "src"),
    "VIRTUAL_ENV": sys.prefix,
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "offline",
}


# -- what can be seen without SLURM -----------------------------------------------------------------------------------


def tiny_args(root: Path, cache: Path) -> list[str]:
    """The tiny world instead of a config's data."""
    return [*TINY_DATA, "--data.root", str(root), "--data.cache", str(cache), "--data.protocol.min_item_count=0"]


def test_every_parameter_of_the_sweep_exists(tiny_root: Path, cache: Path) -> None:
    sweep = yaml.safe_load((CONFIGS / "sweeps" / "msmrec_ml1m.yaml").read_text())
    ends = [{name: p.get("values", [p.get("min")])[0] for name, p in sweep["parameters"].items()}]
    ends += [{name: p.get("values", [p.get("max")])[-1] for name, p in sweep["parameters"].items()}]
    for values in ends:
        # as the agent would call it, but for what the program's place in the command is
        *_, shell, _, _ = sweep["command"]
        program = re.sub(r"^exec python", "printf '%s\\n'", shell)
        args = [f"--{name}={value}" for name, value in values.items()]
        environment = {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "r", "PATH": os.environ["PATH"]}
        said = subprocess.check_output(["bash", "-c", program, sweep["program"], *args], env=environment, text=True)
        script, *given = said.splitlines()
        assert (ROOT / script).is_file()
        config = build([*given, *tiny_args(tiny_root, cache)], save=False).config
        assert config.run_dir == "runs/sweeps/s/r" and config.early_stopping.monitor == sweep["metric"]["name"]
        assert config.model.init_args.compatibility == values["model.init_args.compatibility"]


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ablations.sbatch as SLURM would run one task, with an srun that only says what it was asked."""
    (tmp_path / "srun").write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "srun").chmod(0o755)
    lines = ["# a comment", "", "one a.yaml  # 5 min; needs gpu", """two  b.yaml --x='{"k": [1, 2]}' --y=[3,*]"""]
    (tmp_path / "lines.txt").write_text("\n".join(lines))

    def run(number: int | None, file: str = "lines.txt", **more: str) -> subprocess.CompletedProcess[str]:
        slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "1"}
        place = {} if number is None else {**slurm, "SLURM_ARRAY_TASK_ID": str(number)}
        path = f"{tmp_path}:{ENVIRONMENT['PATH']}"
        environment = {**ENVIRONMENT, "SEEDS": "5 6 7", **place, "RUNS": str(tmp_path / "runs"), **more, "PATH": path}
        command = ["bash", "slurm/ablations.sbatch", str(tmp_path / file), "--of_all=1"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run


def test_a_task_is_a_line_and_a_seed(task: Callable[..., Any], tmp_path: Path) -> None:
    assert task(None).stdout == "0-5\n"
    seen = {}
    for number in range(6):
        words = task(number).stdout.split("\n")
        seen[number] = words[words.index("--config") + 1 : words.index("--trainer.num_nodes=1")]
    runs = [f"--run_dir={tmp_path}/runs/{name}/seed={seed}" for name in ("one", "two") for seed in (5, 6, 7)]
    assert [words[-1] for words in seen.values()] == runs
    upstream = f"--runs={tmp_path}/runs"
    assert seen[1] == ["a.yaml", upstream, "--of_all=1", "--seed_everything=6", runs[1]]
    line = ["b.yaml", '--x={"k": [1, 2]}', "--y=[3,*]"]
    assert seen[3] == [*line, upstream, "--of_all=1", "--seed_everything=5", runs[3]]


def test_what_cannot_be_run_is_said(task: Callable[..., Any], tmp_path: Path) -> None:
    assert "array=0-5" in task(6).stderr and task(6).returncode == 2
    assert "array=0-1" in task(2, SEEDS="1").stderr
    (tmp_path / "bad.txt").write_text("one a.yaml\none b.yaml\n")
    assert "two lines named one" in task(None, "bad.txt").stderr and task(None, "bad.txt").returncode == 2
    (tmp_path / "bad.txt").write_text("# nothing\n")
    assert "no lines" in task(0, "bad.txt").stderr
    (tmp_path / "bad.txt").write_text("""one a.yaml --x='{"k": 1}\n""")
    assert "unmatched single quote" in task(0, "bad.txt", SEEDS="1").stderr
    assert task(0, "bad.txt", SEEDS="1").returncode != 0
    (tmp_path / "bad.txt").write_text("one\n")
    assert "one has no config" in task(0, "bad.txt").stderr and task(0, "bad.txt").returncode != 0
    done = tmp_path / "runs" / "one" / "seed=5" / "metrics.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    assert "is finished" in task(0).stdout and task(0).returncode == 0


# -- on a real SLURM --------------------------------------------------------------------------------------------------


class Slurm:
    """Submits to a cluster and looks at what becomes of the jobs."""

    def __init__(self, conf: str) -> None:
        self.environment = {**ENVIRONMENT, "SLURM_CONF": conf}

    def __call__(self, *command: str, **variables: str) -> str:
        """Runs a command of SLURM's and returns what it says."""
        done = subprocess.run(
            command, cwd=ROOT, env={**self.environment, **variables}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, logs: Path, *words: str, **variables: str) -> str:
        """Number of the job; its logs go to <logs>/<job>_<task>.log."""
        options = ["--parsable", "--cpus-per-task=1", "--time=10", f"--output={logs}/%A_%a.log"]
        return self("sbatch", *options, *words, **variables)

    def array(self, logs: Path, lines: list[str], *overrides: str, **variables: str) -> str:
        """As the head of slurm/ablations.sbatch says."""
        file = logs / "lines.txt"
        file.write_text("\n".join(lines))
        tasks = self("bash", "slurm/ablations.sbatch", str(file), **variables)
        script = ["slurm/ablations.sbatch", str(file), *overrides]
        return self.submit(logs, f"--array={tasks}", *script, RUNS=str(logs / "runs"), **variables)

    def requeue(self, task: str) -> None:
        """What SLURM does two minutes before the time limit, and then the wait for another start made short."""
        self("scancel", "--batch", "--signal=USR1", task)
        until(lambda: self("squeue", "-h", "-r", "-j", task, "-o", "%T") in ("PENDING", "CONFIGURING", "RUNNING"))
        until(lambda: self("squeue", "-h", "-r", "-j", task, "-o", "%T %r") == "PENDING BeginTime")
        self("scontrol", "update", f"JobId={task}", "StartTime=now")

    def end(self, job: str) -> list[str]:
        """Waits; then how each task ended, in their order."""
        until(lambda: not self("squeue", "-h", "-j", job, "-o", "%T"))
        said = self("scontrol", "show", "job", "-o", job).splitlines()
        tasks = {int((re.search(r"ArrayTaskId=(\d+)", line) or [0, 0])[1]): line for line in said}
        return [re.findall(r"JobState=(\w+)", tasks[number])[0] for number in sorted(tasks)]


def until(happened: Callable[[], object], seconds: float = 240) -> None:
    """Waits for it."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with cluster(tmp_path_factory.mktemp("slurm")) as conf:
        yield Slurm(conf)


def metrics(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def logs_of(folder: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted(folder.glob("*.log")))


class Array(NamedTuple):
    """An array of four tasks that has ended."""

    states: dict[str, str]
    runs: dict[str, Path]
    logs: dict[str, str]


@pytest.fixture(scope="module")
def array(slurm: Slurm, tiny_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Array:
    """The second task's line is wrong; the last, which bears the number of the whole array, is requeued in the middle.

    Where all goes well, `whole` and `cut` are the same training.
    """
    folder = tmp_path_factory.mktemp("array")
    lines = {"low": "--model.init_args.dropout=0.1", "odd": "--model.init_args.dropot=0.1", "whole": "", "cut": ""}
    args = [a for a in tiny_args(tiny_root, cache) if a != "--trainer.logger=false"]
    args += ["--trainer.max_epochs=60", "--trainer.check_val_every_n_epoch=20"]
    job = slurm.array(folder, [f"{name} sasrec_ml100k.yaml {more}" for name, more in lines.items()], *args, SEEDS="3")
    runs = {name: folder / "runs" / name / "seed=3" for name in lines}
    until((runs["cut"] / "checkpoints" / "last.ckpt").exists)
    slurm.requeue(f"{job}_3")
    assert not (runs["cut"] / "metrics.json").exists(), "it had ended before the signal came"
    states = dict(zip(lines, slurm.end(job), strict=True))
    return Array(states, runs, {name: (folder / f"{job}_{i}.log").read_text() for i, name in enumerate(lines)})


def test_one_task_of_an_array_fails_and_the_others_stand(array: Array) -> None:
    completed = {name: state == "COMPLETED" for name, state in array.states.items()}
    assert completed == {"low": True, "odd": False, "whole": True, "cut": True}, array.logs
    assert {name: (run / "metrics.json").exists() for name, run in array.runs.items()} == completed
    assert "dropot" in array.logs["odd"]
    low, whole = array.runs["low"], array.runs["whole"]
    assert metrics(low)["test"] != metrics(whole)["test"] and metrics(low)["seed"] == 3
    # the runs that stand are read as any others
    assert f"{metrics(low)['test']['hit_rate@10']:.4f}" in compare_slices([low])[0]


def test_a_requeued_task_goes_on_and_ends_as_if_nothing_had_happened(array: Array) -> None:
    whole, cut = array.runs["whole"], array.runs["cut"]
    assert f"resuming {cut}/checkpoints/last.ckpt" in array.logs["cut"] and "JOB REQUEUE" in array.logs["cut"]
    for name in ("low", "odd", "whole"):  # this task alone
        assert "resuming" not in array.logs[name] and "REQUEUE" not in array.logs[name]
    for part in ("val", "test"):
        assert metrics(whole)[part] == metrics(cut)[part]
    assert metrics(cut)["train"]["epochs"] == 60
    assert not list(cut.glob("hpc_ckpt*"))  # Lightning's own requeueing, in the middle of an epoch, is off
    parts = [path.name.rsplit("-", 1)[1] for path in cut.glob("wandb/offline-run-*")]
    assert len(parts) == 2 and len(set(parts)) == 1  # one W&B run, in two parts
    assert parts[0] not in {path.name.rsplit("-", 1)[1] for path in whole.glob("wandb/offline-run-*")}


def test_what_two_tasks_need_is_built_once_though_its_builder_is_killed(
    slurm: Slurm, tiny_root: Path, cache: Path, tmp_path: Path
) -> None:
    text, runs = tiny_text(tiny_root), tmp_path / "upstream"
    config = tiny_config("projector_ml1m.yaml", tmp_path, text)
    needed = yaml.safe_load(config.read_text())["needs"][0]
    tiny_config(Path(needed).name, tmp_path, text, **{"trainer.max_epochs": 80, "trainer.check_val_every_n_epoch": 40})
    lines = [f"one {config}", f"two {config} --model.init_args.alignment.dropout=0.0"]
    job = slurm.array(tmp_path, lines, *tiny_args(tiny_root, cache), f"--runs={runs}")
    upstream = runs / Path(needed).stem / "seed=0"
    until((upstream / "checkpoints" / "last.ckpt").exists)
    logs = [tmp_path / f"{job}_{number}.log" for number in (0, 1)]
    (builder,) = (number for number in (0, 1) if "training it first" in logs[number].read_text())
    slurm.requeue(f"{job}_{builder}")
    assert slurm.end(job) == ["COMPLETED"] * 2, logs_of(tmp_path)
    assert f"resuming {upstream}" in logs[1 - builder].read_text()  # who had waited took over
    assert "REQUEUE" not in logs[1 - builder].read_text()
    assert logs[builder].read_text().count("training it first") == 1
    for name in ("one", "two"):
        assert metrics(tmp_path / "runs" / name / "seed=0")["upstream"] == {Path(needed).stem: str(upstream)}
    assert metrics(upstream)["train"]["epochs"] == 80


def test_two_processes_train_together(slurm: Slurm, tiny_root: Path, cache: Path, tmp_path: Path) -> None:
    text = tiny_text(tiny_root)
    needed = tiny_config("lightgcn_ml1m.yaml", tmp_path, text)
    config = tiny_config("sasrec_ml100k.yaml", tmp_path, text, needs=[str(needed)])
    args = [*tiny_args(tiny_root, cache), f"--runs={tmp_path}/upstream", "--data.tokens_per_batch=512"]
    run = tmp_path / "run"
    script = ["slurm/train.sbatch", str(config), *args, "--trainer.accelerator=cpu", f"--run_dir={run}"]
    job = slurm.submit(tmp_path, "--ntasks-per-node=2", *script)
    assert slurm.end(job) == ["COMPLETED"], logs_of(tmp_path)
    log = next(tmp_path.glob(f"{job}_*.log")).read_text()
    assert "MEMBER: 2/2" in log and log.count("training it first") == 1
    alone = evaluate(["--run", str(run)])
    assert alone["test/ndcg@10"] == pytest.approx(metrics(run)["test"]["ndcg@10"], abs=1e-6)


def test_two_nodes_train_together(
    tiny_root: Path, cache: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two slurmd of this host: what differs from two hosts is the network between them and a disk of their own."""
    text = tiny_text(tiny_root)
    config = tiny_config("sasrec_ml100k.yaml", tmp_path, text)
    run = tmp_path / "run"
    args = [*tiny_args(tiny_root, cache), "--data.tokens_per_batch=512", "--trainer.accelerator=cpu"]
    with cluster(tmp_path_factory.mktemp("two"), nodes=2) as conf:  # a short name: sockets have at most 108 letters
        slurm = Slurm(conf)
        script = ["slurm/train.sbatch", str(config), *args, f"--run_dir={run}"]
        # The nodes' names mean nothing to a resolver here; on a cluster Lightning takes the first one.
        job = slurm.submit(tmp_path, "--nodes=2", "--ntasks-per-node=1", *script, MASTER_ADDR="127.0.0.1")
        assert slurm.end(job) == ["COMPLETED"], logs_of(tmp_path)
        assert "NumNodes=2" in slurm("scontrol", "show", "job", "-o", job)
    log = next(tmp_path.glob(f"{job}_*.log")).read_text()
    assert "MEMBER: 1/2" in log and "MEMBER: 2/2" in log
    alone = evaluate(["--run", str(run)])
    assert alone["test/ndcg@10"] == pytest.approx(metrics(run)["test"]["ndcg@10"], abs=1e-6)
