"""Which runs may stand in one table, and which of them are seeds of one row."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import yaml

from msmrec.arguments import CONFIGS, layers
from msmrec.artifacts import InputError
from msmrec.data.prepare import SplitProtocol
from msmrec.run_folder import Run, flat, without_seed

# Keys of metrics.json's protocol that say how a model was trained or chosen, not what it was tested on.
TRAINING = ("val_samples", "train_samples", "channels", "k", "retrieval", "edges_above", "before", "users")
# The dataset's fingerprint covers these, so a run that does not write one of them down is still comparable.
IN_FINGERPRINT = (*(field.name for field in fields(SplitProtocol)), "users_without_history")
LIMITS = ("trainer.limit_train_batches", "trainer.limit_test_batches")


@dataclass
class Group:
    """Seeds of one config: a row of the table."""

    name: str
    runs: list[Run]
    x: float | None = None
    line: str = ""
    """What the row is called without its x: rows of one line are joined in a plot."""


def refuse_different_tests(runs: Sequence[Run]) -> None:
    """Refuses finished runs that were not tested on the same thing.

    Raises:
        InputError: another dataset or protocol than the first run's; names both runs and the key.
    """
    for run in runs[1:]:
        first, second = runs[0].record, run.record
        pairs = [
            (f"dataset {key}", *(r["dataset"].get(key) for r in (first, second))) for key in ("name", "fingerprint")
        ]
        protocols = first["protocol"], second["protocol"]
        for key in sorted((set(protocols[0]) | set(protocols[1])) - set(TRAINING)):
            if key not in IN_FINGERPRINT or all(key in protocol for protocol in protocols):
                pairs.append((f"protocol {key}", *(protocol.get(key) for protocol in protocols)))
        # Named is what says most: a key that both have; the fingerprint, which covers many keys, last.
        for key, a, b in sorted(pairs, key=lambda pair: (pair[0] == "dataset fingerprint", None in pair)):
            if a != b:
                raise InputError(
                    f"{runs[0].folder} and {run.folder} cannot be in one table: {key} is {a!r} in the first, {b!r} in"
                    f" the second"
                )


def group_runs(
    runs: Sequence[Run], x: str | None = None, names: Literal["config", "folder"] = "config"
) -> tuple[list[Group], list[str]]:
    """Rows of the table, and warnings: about duplicates, and configs of which one lacks keys.

    Runs of one name, that of their config or of the folder above the seeds, share a row unless model, data or `x`
    differ; then what differs is added to the row's name. A key that a run's config does not have at all, because it was
    made before the option existed, is no difference.

    Raises:
        InputError: `x` is no number in a run's config.
    """
    warnings: list[str] = []
    by_name: dict[str, list[Group]] = defaultdict(list)
    seen: dict[tuple[Path, str], Run] = {}
    for run in runs:
        if seen.setdefault((run.folder.resolve(), run.variant), run) is not run:
            warnings.append(f"{run.folder} is given twice; counted once")
            continue
        value = run.config.get(x) if x else None
        if x and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{run.folder}/config.yaml: {x} is {value!r}, no number; name another --x")
        name = str(run.record["config"]) if names == "config" else without_seed(run.folder)
        groups = by_name[name := f"{name}: {run.variant}" if run.variant else name]
        same = (g for g in groups if g.x == value and not _differences(g.runs[0], run))
        if (group := next(same, None)) is None:
            groups.append(Group(name, [run], value))
            continue
        if twin := next((r for r in group.runs if r.record.get("seed") == run.record.get("seed")), None):
            differ = " but other results" if run.record["test"] != twin.record["test"] else ""
            warnings.append(f"{run.folder} is left out: {twin.folder} has the same config and seed{differ}")
            continue
        if lacking := sorted(set(group.runs[0].settings) ^ set(run.settings)):
            warnings.append(
                f"{group.runs[0].name} and {run.name} are taken for one config, though one does not record"
                f" {', '.join(lacking[:3])}{' ...' if lacking[3:] else ''}"
            )
        group.runs.append(run)
    for groups in by_name.values():
        _name_apart(groups, x)
    return [group for groups in by_name.values() for group in groups], warnings


def _differences(a: Run, b: Run) -> list[str]:
    return [key for key in a.settings if key in b.settings and a.settings[key] != b.settings[key]]


def _name_apart(groups: list[Group], x: str | None) -> None:
    """Adds to the names of rows of one config what distinguishes them: a few keys, or else their folder."""
    keys = dict.fromkeys(key for a in groups for b in groups for key in _differences(a.runs[0], b.runs[0]) if key != x)
    for group in groups:
        config = group.runs[0].config
        values = [f"{key.rpartition('.')[2]}={config[key]}" for key in keys if key in config]
        if len(keys) > 3 or any(isinstance(config.get(key), list) for key in keys):
            values = [without_seed(group.runs[0].folder)]
        group.line = f"{group.name} ({', '.join(values)})" if values else group.name
        if x is not None:
            values.append(f"{x.rpartition('.')[2]}={group.x:g}")
        group.name = f"{group.name} ({', '.join(values)})" if values else group.name


def doubts(groups: Sequence[Group], x: str | None) -> list[str]:
    """Warnings about what makes rows less comparable: commits, numbers of seeds, trainings that were cut short.

    Args:
        groups: rows. x: differs on purpose.
    """
    runs = [run for group in groups for run in group.runs]
    found = []
    commits: dict[str, int] = defaultdict(int)
    for run in runs:
        commits[run.record.get("git_commit") or "unknown"] += 1
    if len(commits) > 1:
        found.append(f"runs of different git commits (how many): {', '.join(f'{c} ({n})' for c, n in commits.items())}")
    seeds = {group.name: len(group.runs) for group in groups}
    if len(set(seeds.values())) > 1:
        found.append(f"different numbers of seeds: {', '.join(f'{name} {n}' for name, n in seeds.items())}")
    for group in groups:
        found += _cut(group) if x != "trainer.max_epochs" else []
    return found


def _cut(group: Group) -> list[str]:
    epochs = [run.config.get("trainer.max_epochs") for run in group.runs]
    known = [e for e in (*epochs, _declared_epochs(group.runs[0].record["config"])) if e is not None]
    reasons = []
    for run, own in zip(group.runs, epochs, strict=True):
        limits = [f"{key} {run.config[key]}" for key in LIMITS if run.config.get(key) is not None]
        if own is not None and 0 < own < max(known):  # 0 trains nothing, and means it
            limits.append(f"trainer.max_epochs {own} instead of {max(known)}")
        reasons += [f"{run.name} ({', '.join(limits)})"] if limits else []
    return [f"cut short: {', '.join(reasons)}"] if reasons else []


def _declared_epochs(config: str) -> int | None:
    """trainer.max_epochs as the config's own files say, which later ones override; "a+b" is b laid over a."""
    files = [sorted(CONFIGS.rglob(part)) for part in layers(f"base+{config}")]
    if not all(files):
        return None  # a config from elsewhere
    declared = None
    for found in files:
        declared = flat(yaml.safe_load(found[0].read_text())).get("trainer.max_epochs", declared)
    return declared
