"""Data flows one way: a package imports only from packages above it (README, layout)."""

import ast
from pathlib import Path

import msmrec

ORDER = [
    "columns",
    "artifacts",
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
    "evaluation",
    "analysis",
    "report",
    "serving",
    "tracking",
    "classes",
    "parser_errors",
    "cli",
    "finished",
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
