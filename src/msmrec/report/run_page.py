"""report.html of a run: which sections it has, in which order."""

import time
from pathlib import Path

from polars.exceptions import PolarsError

from msmrec.artifacts import InputError
from msmrec.report import clicks, data_card, gate, modalities, prompts, provenance, results, texts, training
from msmrec.report.figures import number
from msmrec.report.page import Missing, Page, write_page
from msmrec.report.run_files import RunFiles
from msmrec.run_folder import OpenRun

NAME = "report.html"


def write_report(folder: Path, opened: OpenRun | None = None, why_closed: str = "") -> Page:
    """Writes report.html into a run's folder; what it lacks is said in it.

    Args:
        folder: the run's, finished or not.
        opened: its model, which the dearer sections ask: the gate at work, faithfulness of texts.
        why_closed: without it, the sentence that stands in their place.

    Returns:
        What was written.

    Raises:
        InputError: there is no run, or jinja2 or bokeh is not installed.
    """
    run = RunFiles(folder)
    why = why_closed or f"This section asks the model: python -m msmrec report {folder} makes it."
    page = Page(run.name, *_header(run), sections=[])
    page.add("Metrics", lambda: results.metrics(run))
    page.add("Variants", lambda: results.variants(run))
    click = (folder / "predictions.parquet").is_file()
    page.add("Slices", lambda: clicks.click_slices(run) if click else results.slices(run))
    page.add("Calibration", lambda: clicks.calibration(run))
    page.add("Training curves", lambda: training.training_curves(run))
    page.add("Modalities", lambda: modalities.modalities(folder))
    page.add("The gate at work", lambda: gate.gate_at_work(run, opened, why))
    page.add("Retrieval before and after", lambda: prompts.retrieval(run))
    page.add("Sample prompts", lambda: prompts.sample_prompts(run))
    page.add("Faithfulness of texts", lambda: texts.texts(run, opened, why))
    page.add("Data card", lambda: data_card.data_card(run))
    page.add("Speed and memory", lambda: training.speed(run))
    page.add("Configuration", lambda: provenance.configuration(run))
    page.add("Lineage", lambda: provenance.lineage(run))
    write_page(page, folder / NAME)
    return page


def asks_the_model(folder: Path) -> bool:
    """Whether a section of the run's report needs its model.

    Raises:
        InputError: there is no run.
    """
    return RunFiles(folder).reads_texts


def report_of_training(folder: Path) -> str:
    """The report as training leaves it, without the dearer sections; one line about it.

    A training that has its results must not fail for want of a page.
    """
    started = time.perf_counter()
    try:
        write_report(folder)
    except InputError as error:
        return f"{folder / NAME} was not written: {error}"
    return f"{folder / NAME} written in {time.perf_counter() - started:.1f} s"


def _header(run: RunFiles) -> tuple[str, list[tuple[str, str, str]]]:
    """Subtitle and headline numbers."""
    try:
        record = run.record
        cells = {} if run.has_variants else run.cells
    except Missing as missing:
        return str(missing), []
    except (InputError, PolarsError, OSError):
        cells = {}  # the section on metrics says what is wrong
    model = str(run.run.config.get("model.class_path", "")).rpartition(".")[2]
    data, protocol = record["dataset"], record["protocol"]
    share = f"{100 * protocol['ratios'][2]:g}%" if "ratios" in protocol else "part"
    split = {
        "leave_one_out": "the last item of each user",
        "global_time": f"the last {share} in time",
        "user_ratio": f"the last {share} of each user's ratings",
        "user_random": f"{share} of each user's ratings, drawn at random",
    }.get(protocol.get("split"), protocol.get("split", ""))
    subtitle = f"{model} on {data['name']}: {data['num_users']:,} users, {data['num_items']:,} items; tested on {split}"
    subtitle += f", {protocol['candidates']} as candidates" if protocol.get("candidates") else ""
    tiles = []
    for name in results.headline(run) if cells else []:
        cell = cells[name]
        beneath = "" if not cell.interval else f"{cell.interval[0]:.4f} to {cell.interval[1]:.4f}"
        tiles.append((name.replace("_", " "), number(cell.mean), beneath))
    if run.has_variants:
        best = max(run.test, key=lambda key: run.test[key] if key.endswith("/ndcg@10") else -1.0)
        tiles.append(("highest NDCG@10", number(run.test[best]), best.partition("/")[0]))
    if (train := record.get("train") or {}).get("seconds"):
        tiles.append(
            (
                "whole run",
                f"{train['seconds'] / 60:,.1f} min",
                f"{train.get('epochs', 0)} epochs on {train.get('device', '')}",
            )
        )
    return subtitle + f"; seed {record.get('seed')}.", tiles
