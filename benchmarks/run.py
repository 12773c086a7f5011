"""Ours and the peers on the same data, one after the other, each in a process of its own.

    python benchmarks/run.py                     all of them (make bench)
    python benchmarks/run.py sasrec lightgcn     some
    python benchmarks/run.py --list              names, what they measure, and for how long
    python benchmarks/run.py --missing           those without results yet: goes on where an earlier call stopped
    python benchmarks/run.py sasrec --no-peers   ours alone; so does a peer that cannot be installed

Writes benchmarks/results/NAME.md and NAME.json. Peers live in virtual environments under benchmarks/.peers/, made from
the package registry when first needed. Threads are fixed for all (--threads), data are read from --root or MSMREC_DATA.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from msmrec.command import PYTORCH_SETTINGS

HERE = Path(__file__).resolve().parent
PYTORCH = f"torch=={version('torch').partition('+')[0]}"
ENVIRONMENTS = {
    "torch": [PYTORCH, "rectools[torch]>=0.19", "torch_geometric>=2.6", "sentence-transformers>=5"],
    # RecBole's newest release needs numpy 1, the scipy of its time, and pkg_resources
    "recbole": [PYTORCH, "recbole==1.2.1", "numpy<2", "scipy<1.13", "pandas<3", "setuptools<81"],
    "pandas": [PYTORCH, "pandas>=3"],  # RecTools holds an older one, which reads half as fast
    "replay": [PYTORCH, "replay-rec>=0.20", "lightning"],
}


class Peer(NamedTuple):
    """A script of peers/ and the environment that it runs in; "" is this one."""

    script: str
    environment: str = ""


class Benchmark(NamedTuple):
    """What it measures, and about how many minutes that takes on two cores, peers included."""

    about: str
    minutes: float
    peers: tuple[Peer, ...] = ()
    ours: tuple[tuple[str, ...], ...] = ((),)
    """Arguments of our script, for each time that it runs."""
    plain: bool = False
    """The script has a command line of its own and prints its own table."""


BENCHMARKS = {
    "sasrec": Benchmark(
        "SASRec on ML-1M: a training epoch, the full ranking (dim 64, 2 blocks, length 200, softmax)",
        7.0,
        (
            Peer("sasrec_plain.py"),
            Peer("sasrec_rectools.py", "torch"),
            Peer("sasrec_replay.py", "replay"),
            Peer("sasrec_recbole.py", "recbole"),
        ),
        ((), ("--precision", "32-true")),
    ),
    "load": Benchmark(
        "From the raw file to the first training batch: ML-1M, and 25 million generated ratings",
        3.0,
        (Peer("load_plain.py", "pandas"), Peer("load_rectools.py", "torch")),
    ),
    "lightgcn": Benchmark(
        "An epoch of LightGCN with BPR on ML-1M (dim 64, 3 layers, batch 2048)",
        3.5,
        (Peer("lightgcn_pyg.py", "torch"), Peer("lightgcn_recbole.py", "recbole")),
    ),
    "encode": Benchmark(
        "Text encoding by all-MiniLM-L6-v2, cold and a second time",
        1.5,
        (Peer("encode_sentence_transformers.py", "torch"),),
    ),
    "retrieval": Benchmark("Histories and prompts of all 970,009 click samples of ML-1M", 1.5),
    "language_model": Benchmark(
        "The language model's click head beside the plain recipe",
        3.0,
        (Peer("language_model_trainer.py"),),
        (("--ways", "ours", "window"),),
        plain=True,
    ),
    "llama_8b": Benchmark("The same at Llama 3.1 8B's shape: operations and memory, counted", 2.5, plain=True),
    "index": Benchmark(
        "Building and searching an index of 10^4 to 10^6 items", 2.0, ours=(("--kinds", "ivf", "pq"),), plain=True
    ),
    "growth": Benchmark("How time grows with users, items, length and batch", 2.0),
    "scale": Benchmark(
        "25 million ratings, and a catalogue of a million items",
        3.0,
        ours=(("--part", "ratings"), ("--part", "catalogue")),
    ),
    "floor": Benchmark("What the machine can do, and how far the hot paths are from that", 0.5),
    "startup": Benchmark("python train.py --help", 0.3),
    "fusion": Benchmark("Fitting and applying each kind of fusion", 0.5, plain=True),
    "llm_client": Benchmark("What asking a language model's server costs on our side", 0.5, plain=True),
    "amazon": Benchmark("Reading Amazon reviews", 0.5, plain=True),
}


def environment(name: str) -> Path | None:
    """The Python of a peers' environment, installed now where it is not there; None where that fails."""
    folder = HERE / ".peers" / name
    python, done = folder / "bin" / "python", folder / ".complete"
    wanted = "\n".join(ENVIRONMENTS[name])
    if done.is_file() and done.read_text() == wanted:
        return python
    print(f"installing the peers of {folder.name}: {', '.join(ENVIRONMENTS[name])}", flush=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *ENVIRONMENTS[name]]
    for command in ([sys.executable, "-m", "venv", str(folder)], install):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            print(f"  failed, so these peers are left out: {(made.stderr or made.stdout).strip()[-300:]}")
            return None
    done.write_text(wanted)
    return python


def measure(script: Path, python: Path | str, args: list[str], threads: int, limit: float) -> list[dict[str, Any]]:
    """Runs a script to its end and returns its results, or one with the `error`."""
    unset = ("VIRTUAL_ENV", "PYTHONHOME")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS")
    env = {key: value for key, value in os.environ.items() if key not in unset}
    env |= {name: str(threads) for name in names}
    if script.parent == HERE:  # ours, as its commands run
        env = PYTORCH_SETTINGS | env
    env |= {"PYTHONPATH": f"{HERE}:{HERE.parent / 'src'}", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "true"}
    command = [str(python), str(script), *args]
    begin = time.perf_counter()
    try:
        ran = subprocess.run(command, env=env, cwd=HERE.parent, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return [{"who": script.stem, "error": f"stopped after {limit:.0f} s"}]
    found = [json.loads(line[7:]) for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    print(f"  {script.stem}: {time.perf_counter() - begin:.0f} s", flush=True)
    if ran.returncode:
        said = (ran.stderr or ran.stdout).strip().splitlines()
        return [*found, {"who": script.stem, "error": said[-1][:300] if said else f"exit {ran.returncode}"}]
    if not found:  # a script that prints a table of its own
        return [{"who": "ours", "text": ran.stdout.strip()}]
    return found


def hardware(threads: int) -> str:
    """One line on the machine."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, StopIteration):
        memory = ""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
        gpu = "; GPU: " + ", ".join(listed.stdout.split("\n")).strip(", ")
    except (OSError, subprocess.CalledProcessError):
        gpu = ""
    return f"{cpu}, {os.cpu_count()} cores, {threads} threads{memory}{gpu}"


def report(name: str, results: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The Markdown of NAME.md."""
    out = [f"# {name}", "", BENCHMARKS[name].about + ".", ""]
    out += [f"{about['hardware']}; load before the start {about['load']:.1f}; {about['date']}, {about['commit']}."]
    out += ["", "`" + about["command"] + "`", ""]
    timed = [r for r in results if r.get("measures")]
    ours = next((r["measures"] for r in timed if r["who"] == "ours"), {})
    if timed:
        out += ["| what | who | seconds | spread | times ours | peak MB | quality |", "|:--|:--|--:|--:|--:|--:|:--|"]
        order = dict.fromkeys(key for r in timed for key in r["measures"])
        for what in order:
            for r in (r for r in timed if what in r["measures"]):
                taken = r["measures"][what]
                ratio = ""
                if what in ours and r["who"] != "ours":
                    low, high = min(taken) / max(ours[what]), max(taken) / min(ours[what])
                    ratio = f"**{median(taken) / median(ours[what]):.2f}** ({low:.2f} to {high:.2f})"
                spread = f"{min(taken):.3g} to {max(taken):.3g}" if len(taken) > 1 else "one run"
                quality = ", ".join(f"{k} {v}" for k, v in r.get("quality", {}).items())
                cells = [
                    what,
                    r["who"],
                    f"{median(taken):.3g}",
                    spread,
                    ratio,
                    f"{r['peak_mb']:,}" if r["peak_mb"] else "",
                    quality,
                ]
                out.append("| " + " | ".join(cells) + " |")
        out.append("")
    for r in results:
        if r.get("table"):
            keys = list(dict.fromkeys(key for row in r["table"] for key in row))
            out += ["| " + " | ".join(keys) + " |", "|" + "--|" * len(keys)]
            out += ["| " + " | ".join(str(row.get(key, "")) for key in keys) + " |" for row in r["table"]] + [""]
        if r.get("text"):
            out += [r["text"], ""]
    for r in results:
        if r.get("error"):
            out.append(f"* {r['who']} was not measured: {r['error']}")
        elif r.get("note") or r.get("versions"):
            versions = ", ".join(f"{k} {v}" for k, v in r.get("versions", {}).items())
            out.append(f"* {r['who']}: {r.get('note', '')} [{versions}]".replace(":  [", ": ["))
    return "\n".join(out).rstrip() + "\n"


def main() -> None:
    """Runs the benchmarks named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="benchmarks; all of them by default")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--missing", action="store_true", help="leave out those that have results")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--root", default=os.environ.get("MSMREC_DATA", "data"), help="folder of the raw datasets")
    parser.add_argument("--results", type=Path, help="folder to write to (default: results/, of --quick .work/quick/)")
    parser.add_argument("--limit", type=float, default=1200, help="seconds after which a script is stopped")
    parser.add_argument("--quick", action="store_true", help="tiny generated data, ours alone: does it run at all?")
    args = parser.parse_args()
    if args.list:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:16} {benchmark.minutes:4.1f} min  {benchmark.about}")
        print(f"{'all':16} {sum(b.minutes for b in BENCHMARKS.values()):4.1f} min, environments of the peers apart")
        return
    if unknown := [name for name in args.name if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    names = args.name or list(BENCHMARKS)
    args.results = args.results or HERE / (".work/quick" if args.quick else "results")
    args.results.mkdir(parents=True, exist_ok=True)
    os.environ["MSMREC_DATA"] = str(Path(args.root).resolve())  # for scripts with a command line of their own
    failed = []
    for name in names:
        if args.missing and (args.results / f"{name}.json").is_file():
            continue
        print(f"{name}: about {BENCHMARKS[name].minutes:g} minutes", flush=True)
        about: dict[str, Any] = {
            "hardware": hardware(args.threads), "load": os.getloadavg()[0], "date": str(date.today()),
            "commit": _commit(), "command": f"python benchmarks/run.py {name} --threads {args.threads}",
        }  # fmt: skip
        shared = ["--root", str(Path(args.root).resolve()), "--threads", str(args.threads)]
        shared = (
            [] if BENCHMARKS[name].plain else shared + ["--quick", "--work", str(HERE / ".work/quick")] * args.quick
        )
        scripts: list[tuple[Path, str, list[str]]] = [
            (HERE / f"{name}.py", "", [*shared, *own]) for own in BENCHMARKS[name].ours
        ]
        if not (args.no_peers or args.quick):
            scripts += [(HERE / "peers" / peer.script, peer.environment, shared) for peer in BENCHMARKS[name].peers]
        results: list[dict[str, Any]] = []
        for script, peers, given in scripts:
            python = environment(peers) if peers else Path(sys.executable)
            if python:
                results += measure(script, python, given, args.threads, args.limit)
            else:
                results.append({"who": script.stem, "error": f"its environment {peers} could not be installed"})
            if script.parent == HERE and "error" in results[-1]:
                break  # peers would read what an earlier run of ours handed over, and good results be overwritten
            # after every script: what was measured stays when the next one is interrupted
            done = script == scripts[-1][0] and given == scripts[-1][2]
            write(
                args.results / f"{'' if done else 'part-'}{name}.json",
                json.dumps({**about, "results": results}, indent=1),
            )
            write(args.results / f"{name}.md", report(name, results, about))
        else:
            print(f"  -> {args.results / name}.md", flush=True)
            (args.results / f"part-{name}.json").unlink(missing_ok=True)
            continue
        print(f"  ours failed, nothing of this script was written: {results[-1]['error']}", flush=True)
        failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.replace(path)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty=+"]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    return ran.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
