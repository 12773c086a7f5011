"""Data flows one way: a package imports only from packages above it (README, layout)."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import msmrec
from msmrec.command import PYTORCH_SETTINGS

ORDER = [
    "columns",
    "artifacts",
    "markdown",
    "hardware",
    "command",
    "arguments",
    "cluster",
    "item_vectors",
    "metrics",
    "data",
    "llm",
    "text",
    "media",
    "linear_fusion",
    "learned_fusion",
    "fusion",
    "models",
    "retrieval",
    "ctr",
    "recommend",
    "run_folder",
    "training_results",
    "evaluation",
    "analysis",
    "report",
    "serving",
    "tracking",
    "resume",
    "training",
    "classes",
    "parser_errors",
    "cli",
    "finished_run",
    "suite_file",
    "suite_plan",
    "suite",
    "verbs",
    "__main__",
]


def test_packages_import_only_from_above() -> None:
    root = Path(msmrec.__file__).parent
    wrong, checked = [], 0
    for path in root.rglob("*.py"):
        place = path.relative_to(root).parts[0].removesuffix(".py")
        if place == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("msmrec."):
                    checked += 1
                    if ORDER.index(name.split(".")[1]) > ORDER.index(place):
                        wrong.append(f"{path.relative_to(root)} imports {name}")
    assert not wrong and checked > 30


def test_pytorch_finds_its_settings_when_it_starts() -> None:
    """Every command imports msmrec.command before torch; what a user has set stays."""
    code = "import os, sys, msmrec.command; print('torch' in sys.modules, *map(os.environ.get, sys.argv[1:]))"
    environment = {key: value for key, value in os.environ.items() if key not in PYTORCH_SETTINGS}
    for given in ({}, {"THP_MEM_ALLOC_ENABLE": "0"}):
        ran = subprocess.run(
            [sys.executable, "-c", code, *PYTORCH_SETTINGS], env=environment | given, capture_output=True, text=True
        )
        assert ran.stdout.split() == ["False", *(PYTORCH_SETTINGS | given).values()]
    for file in ("train.py", "evaluate.py", "src/msmrec/__main__.py"):
        lines = (Path(__file__).parents[1] / file).read_text().splitlines()
        imported = [line.split()[1].partition(".")[0] for line in lines if re.match("(from|import) ", line)]
        assert set(imported) <= {"importlib", "pkgutil", "sys", "msmrec"}
