"""The sections on where a run comes from: its configuration, the runs it builds on, commit and versions."""

import json
from pathlib import Path
from typing import Any

import yaml

from msmrec.report.figures import number
from msmrec.report.page import Block, Code, Missing, Prose, Table
from msmrec.report.run_files import RunFiles
from msmrec.run_folder import without_nulls


def configuration(run: RunFiles) -> list[Block]:
    """What was chosen, and the whole config.yaml."""
    if not run.config:
        raise Missing("The run has no config.yaml.")
    chosen = {
        key: value for key, value in run.run.config.items() if value is not None and key.startswith(("model.", "data."))
    }
    rows = [
        [key.replace("init_args.", ""), _text(value)]
        for key, value in chosen.items()
        if not key.startswith(("data.root", "data.cache"))
    ]
    rows += [
        [key, _text(run.run.config[key])]
        for key in ("trainer.max_epochs", "trainer.precision", "early_stopping.patience")
        if run.run.config.get(key) is not None
    ]
    text = yaml.safe_dump(without_nulls(run.config), sort_keys=False, allow_unicode=True)
    return [Table("Model and data", ["key", "value"], rows), Code("config.yaml, without what is null", text)]


def _text(value: Any) -> str:
    return (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, list)
        else number(value, 6)
        if isinstance(value, bool)
        else str(value)
    )


def lineage(run: RunFiles) -> list[Block]:
    """Upstream runs, and theirs; the commit and the versions of what was used."""
    record = run.record
    facts = [
        ["config", str(record["config"])],
        ["seed", number(record.get("seed"))],
        ["commit", record.get("git_commit") or "unknown"],
        *([name, number] for name, number in (record.get("versions") or {}).items()),
    ]
    if any(str(fact[1]).endswith("+") for fact in facts if fact[0] == "commit"):
        facts.append(["", "+: files differed from the commit"])
    blocks: list[Block] = [Table("What made this run", ["", ""], facts)]
    if not record.get("versions"):
        blocks.append(Prose("Versions of libraries are not in this run's metrics.json, which an older version wrote."))
    rows = _upstream(record, 0, set())
    if rows:
        columns = ["run", "folder", "config", "seed", "commit", "dataset", "state"]
        blocks.append(Table("The runs that it builds on", columns, rows))
    else:
        blocks.append(Prose("It builds on no other run."))
    return blocks


def _upstream(record: dict[str, Any], depth: int, seen: set[str]) -> list[list[str]]:
    rows = []
    for name, folder in (record.get("upstream") or {}).items():
        path, shown = Path(folder) / "metrics.json", "↳ " * depth + name
        if not path.is_file():
            rows.append([shown, folder, "", "", "", "", "not there any more"])
            continue
        try:
            above = json.loads(path.read_text())
        except ValueError:
            rows.append([shown, folder, "", "", "", "", "its metrics.json is broken"])
            continue
        same = above["dataset"]["fingerprint"] == record["dataset"]["fingerprint"]
        state = "same dataset" if same else "another dataset: " + above["dataset"]["fingerprint"]
        rows.append(
            [
                shown,
                folder,
                str(above["config"]),
                number(above.get("seed")),
                above.get("git_commit") or "unknown",
                above["dataset"]["name"],
                state,
            ]
        )
        if folder not in seen:
            rows += _upstream(above, depth + 1, seen | {folder})
    return rows
