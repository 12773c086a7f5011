"""benchmarks/run.py runs ours on the tiny world and writes its table; its names and files fit together."""

import ast
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_run", BENCHMARKS / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_run"] = module  # NamedTuple looks itself up
    spec.loader.exec_module(module)
    return module


def test_every_benchmark_and_peer_has_its_script(run: ModuleType) -> None:
    for name, benchmark in run.BENCHMARKS.items():
        assert (BENCHMARKS / f"{name}.py").is_file(), name
        for peer in benchmark.peers:
            assert (BENCHMARKS / "peers" / peer.script).is_file(), peer
            assert peer.environment in ("", *run.ENVIRONMENTS)
    assert sum(benchmark.minutes for benchmark in run.BENCHMARKS.values()) <= 32


def test_what_scripts_import_of_ours_is_there() -> None:
    for script in BENCHMARKS.glob("*.py"):
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("msmrec."):
                for name in node.names:
                    pkgutil.resolve_name(f"{node.module}.{name.name}")  # a value or a module; raises where neither


def test_ours_runs_on_the_tiny_world(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "run.py"), "sasrec", "--quick", "--threads", "1"]
    made = subprocess.run([*command, "--results", str(tmp_path)], capture_output=True, text=True, env={**os.environ})
    assert made.returncode == 0, made.stderr
    written = json.loads((tmp_path / "sasrec.json").read_text())
    assert [result["who"] for result in written["results"]] == ["ours", "ours, float32"], written
    assert all(second > 0 for result in written["results"] for s in result["measures"].values() for second in s)
    table = (tmp_path / "sasrec.md").read_text()
    assert "| training, an epoch | ours |" in table and "NDCG@10 after 1 epochs" in table


def test_the_table_of_ratios(run: ModuleType) -> None:
    ours = {"who": "ours", "measures": {"work": [1.0, 2.0, 3.0]}, "peak_mb": 1234, "versions": {"torch": "2"}}
    peer = {"who": "peer", "measures": {"work": [8.0, 10.0]}, "peak_mb": 5, "quality": {"NDCG@10": 0.1}}
    failed = {"who": "other", "error": "no such module"}
    about = {"hardware": "a machine", "load": 0.0, "date": "today", "commit": "abc", "command": "run"}
    lines = run.report("sasrec", [ours, peer, failed], about).splitlines()
    assert "| work | ours | 2 | 1 to 3 |  | 1,234 |  |" in lines
    assert "| work | peer | 9 | 8 to 10 | **4.50** (2.67 to 10.00) | 5 | NDCG@10 0.1 |" in lines
    assert "* other was not measured: no such module" in lines


def test_a_failure_of_ours_leaves_earlier_results(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "run.py"), "sasrec", "--threads", "1", "--results", str(tmp_path)]
    (tmp_path / "sasrec.md").write_text("good")
    made = subprocess.run([*command, "--root", str(tmp_path / "none")], capture_output=True, text=True)
    assert made.returncode == 1 and "failed: sasrec" in made.stderr
    assert "ours failed" in made.stdout and "sasrec_plain" not in made.stdout  # a peer would read another run's files
    assert (tmp_path / "sasrec.md").read_text() == "good" and not (tmp_path / "sasrec.json").exists()
