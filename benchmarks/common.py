"""What every measured script shares, ours and the peers': arguments, timing, and the one JSON line that it prints.

Nothing of msmrec is imported here, and torch only where it is there already: peers run this in their own environments.
"""

import argparse
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def arguments(description: str | None, **own: Any) -> argparse.Namespace:
    """Reads the arguments that all scripts have, and a script's `own` ones (name = default)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("MSMREC_DATA", "data")), help="raw datasets")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("MSMREC_CACHE", "artifacts")))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work"), help="files handed from ours to peers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny generated dataset: does it run at all?")
    for name, default in own.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(given.threads)
    return given


def seconds(work: Callable[[], object], repetitions: int = 3, warm_up: int = 1) -> list[float]:
    """Times `work`; the first `warm_up` runs are left out."""
    taken = []
    for repetition in range(warm_up + repetitions):
        gc.collect()
        begin = time.perf_counter()
        work()
        if repetition >= warm_up:
            taken.append(time.perf_counter() - begin)
    return taken


def quarters(batches: list[float], total: int | None = None) -> list[float]:
    """Seconds of an epoch, estimated from each quarter of its batches, the first two left out as warm-up.

    Args:
        batches: seconds of each batch. total: batches of the whole epoch, where only some were run.
    """
    total, batches = total or len(batches), batches[2:] if len(batches) > 5 else batches
    size = max(1, len(batches) // 4)
    parts = [batches[k : k + size] for k in range(0, len(batches), size)]
    return [sum(part) / len(part) * total for part in parts if len(part) == size]


def peak_mb() -> float:
    """Most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


_told = False


def emit(who: str, measures: dict[str, list[float]], packages: tuple[str, ...] = ("torch",), **more: Any) -> None:
    """Prints a line of the script. The process's peak memory is told in its first one: it includes what came before.

    Args:
        who: whose numbers. measures: seconds of each repetition, by what was measured. packages: whose versions count.
        more: quality (a dict), note (a sentence), table (a list of rows), peak_mb where it is not the process's.
    """
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    global _told
    line = {"who": who, "measures": measures, "versions": versions, "peak_mb": None if _told else round(peak_mb())}
    line, _told = line | more, True
    print("RESULT " + json.dumps(line), flush=True)
