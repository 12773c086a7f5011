"""Reports of tiny runs in a real browser: drawn, without complaints, in light and dark, by keyboard; and bad input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.browser import browser_page, screenshot
from tests.tiny_configs import TINY_DATA, tiny_text

from msmrec.analysis.analyse import analyse
from msmrec.artifacts import InputError
from msmrec.cli import train
from msmrec.evaluation.compare import compare
from msmrec.finished_run import open_run
from msmrec.report import page as pages
from msmrec.report.clicks import reliability
from msmrec.report.data_card import _times
from msmrec.report.page import Figure, Missing, Page, Prose, Table, write_page
from msmrec.report.run_files import RunFiles
from msmrec.report.run_page import _header, write_report
from msmrec.verbs.compare import main as compare_verb
from msmrec.verbs.report import main as report_verb

EVIL = "<script>document.title='run'</script><img src=x onerror=alert(1)> & Sons"


@pytest.fixture(scope="module")
def runs(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of each kind, on a dataset of their own whose titles are hostile."""
    folder = tmp_path_factory.mktemp("reports")
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "csv", "version": ""}}
    tiny = [argument for argument in TINY_DATA if "logger" not in argument]
    common = [
        *tiny,
        f"--trainer.logger={json.dumps(logger)}",
        "--data.root",
        str(tiny_root),
        "--data.cache",
        str(folder / "cache"),
    ]
    short = ["--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"]
    sequence = [*common, *short, "--data.protocol.min_item_count=0", "--data.tokens_per_batch=512"]
    features = json.dumps({"year": {"class_path": "tests.tiny_configs.YearFeatures"}})
    variants = json.dumps({u: {"features": ["year"], "user": u, "candidates": 12} for u in ("average", "random")})
    two_stage = [
        "--model=TwoStage",
        f"--model.init_args.features={features}",
        f"--model.init_args.variants={variants}",
        "--data.protocol.split=user_ratio",
        "--data.protocol.ratios=[0.7,0.0,0.3]",
        "--trainer.max_epochs=0",
    ]
    made = {
        "sasrec": ["--config", "sasrec_ml100k.yaml", *sequence],
        "msmrec": [
            "--config",
            "msmrec_ml100k.yaml",
            *sequence,
            f"--model.init_args.text={json.dumps(tiny_text(tiny_root))}",
        ],
        "din": ["--config", "din_ml1m.yaml", *common, *short, "--data.protocol.min_history=5"],
        "two_stage": [*common, *two_stage],
    }
    found = {name: train([*args, "--run_dir", str(folder / name / "seed=0")]) for name, args in made.items()}
    for items in (folder / "cache" / "datasets").glob("*/items.parquet"):
        table = pl.read_parquet(items).with_columns(title=pl.lit(EVIL + " ") + pl.col("title"))
        table.write_parquet(items)
    return found


@pytest.fixture(scope="module")
def pages_of(runs: dict[str, Path]) -> dict[str, Path]:
    """Their pages, made by the verb; the gate's run is analysed first."""
    analyse(open_run(runs["msmrec"]), popular_above=0.02, methods=("tsne",), map_items=40, resamples=200)
    report_verb([str(run) for run in runs.values()])
    page = runs["sasrec"].parents[1] / "compare.html"
    compare_verb(
        [
            str(runs["sasrec"]),
            str(runs["msmrec"]),
            "--baseline",
            "sasrec_ml100k",
            "--page",
            str(page),
            "--resamples=200",
        ]
    )
    return {**{name: run / "report.html" for name, run in runs.items()}, "compare": page}


SECTIONS = {
    "sasrec": {"metrics", "slices", "training-curves", "data-card", "speed-and-memory", "configuration", "lineage"},
    "msmrec": {"modalities", "the-gate-at-work", "faithfulness-of-texts", "metrics"},
    "din": {"calibration", "slices", "metrics"},
    "two_stage": {"variants", "slices"},
    "compare": {"results", "slices", "training-curves", "where-the-configurations-differ", "runs"},
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SECTIONS)
def test_pages_open_and_their_plots_are_drawn(
    name: str, scheme: Any, pages_of: dict[str, Path], tmp_path: Path
) -> None:
    assert pages_of[name].stat().st_size < 3e6
    with browser_page(scheme, width=1280 if scheme == "light" else 390) as page:
        page.goto(pages_of[name].as_uri())
        page.evaluate("drawAllFigures()")
        drawn = page.evaluate("[...document.querySelectorAll('[data-figure]')].map(e => e.dataset.drawn)")
        assert drawn and set(drawn) == {scheme}
        assert set(SECTIONS[name]) <= set(page.evaluate("[...document.querySelectorAll('h2')].map(h => h.id)"))
        assert page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth"
        )  # nothing sticks out, on a phone either
        # Every canvas has ink: pixels that are not transparent.
        inked = page.evaluate(
            """[...document.querySelectorAll('[data-figure]')].map(e => {
                const inside = (x) => x.shadowRoot ? all(x.shadowRoot) : [];
                const all = (root) => [...root.querySelectorAll('*')].flatMap(x => [x, ...inside(x)]);
                return all(e).filter(x => x.tagName === 'CANVAS' && x.width).some(c => {
                    const pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
                    return pixels.some((v, k) => k % 4 === 3 && v);
                });
            })"""
        )
        assert inked and all(inked)
        assert (
            page.title() == page.inner_text("h1") and page.evaluate("document.querySelectorAll('main img').length") == 0
        )
        screenshot(page, f"{name}-{scheme}", tmp_path)


def test_a_page_follows_the_scheme_and_the_keyboard(pages_of: dict[str, Path]) -> None:
    with browser_page("light") as page:
        page.goto(pages_of["msmrec"].as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        while page.evaluate("document.activeElement.hash") != "#data-card":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_function("Math.abs(document.getElementById('data-card').getBoundingClientRect().top) < 60")
        page.wait_for_function(
            "document.querySelector('#data-card').closest('section').querySelector('[data-drawn=light]')"
        )
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(
            "document.querySelector('#data-card').closest('section').querySelector('[data-drawn=dark]')"
        )
        # The lists beside the maps choose what is drawn.
        maps = page.locator(".row:has(select)")
        maps.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('.row:has(select) [data-drawn]')")
        options = maps.locator("select").first.locator("option").all_inner_texts()
        assert options == ["narrative", "visual", "set"]
        maps.locator("select").first.select_option(options[-1])


def test_titles_are_text(pages_of: dict[str, Path]) -> None:
    html = pages_of["msmrec"].read_text()
    assert "&lt;script&gt;document.title" in html  # in the tables of recommendations and texts
    assert "<script>document.title" not in html and "<img src=x" not in html


def test_tables_can_be_read_without_scripts(pages_of: dict[str, Path]) -> None:
    html = pages_of["sasrec"].read_text()
    record = json.loads((pages_of["sasrec"].parent / "metrics.json").read_text())
    assert f"{record['test']['ndcg@10']:.4f}" in html and "<noscript>" in html


def test_reliability_by_hand_and_as_the_metric_counts(runs: dict[str, Path]) -> None:
    bins = reliability(np.array([0, 1, 1, 1]), np.array([0.01, 0.03, 0.99, 1.0]))
    assert bins["bin"].to_list() == [0, 14] and bins["samples"].to_list() == [2, 2]
    assert bins["clicked"].to_list() == [0.5, 1.0] and bins["prob"].to_list() == pytest.approx([0.02, 0.995])
    # Wilson's interval of 1 of 2 is 0.0945 to 0.9055.
    assert bins["low"][0] == pytest.approx(0.0945, abs=1e-4) and bins["high"][0] == pytest.approx(0.9055, abs=1e-4)
    table = pl.read_parquet(runs["din"] / "predictions.parquet")
    test = json.loads((runs["din"] / "metrics.json").read_text())["test"]
    of_all = reliability(table["label"].to_numpy(), table["prob"].to_numpy().astype(float))
    off = (of_all["prob"] - of_all["clicked"]).abs() * of_all["samples"]
    assert off.sum() / len(table) == pytest.approx(test["ece"], abs=1e-5)
    html = (runs["din"] / "report.html").read_text()
    assert f"calibration error {test['ece']:.4f}" in html and f"AUC {test['auc']:.4f}" in html


def test_curves_of_a_resumed_run(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "config.yaml").write_text("{}")
    parts = {
        "metrics-0": "epoch,step,train/loss,val/ndcg@10\n0,9,5.0,\n0,9,,0.1\n1,19,4.0,\n",
        "metrics-1": "epoch,step,train/loss,val/ndcg@10\n1,19,4.5,\n1,19,,0.2\n",
        "metrics": "epoch,step,train/loss,val/ndcg@10,test/ndcg@10\n2,29,3.0,,\n2,29,,0.3,\n3,30,,0.3,\n3,30,,,0.25\n",
    }
    for name, text in parts.items():
        (tmp_path / "csv" / f"{name}.csv").write_text(text)
    curves = RunFiles(tmp_path).curves
    assert curves.select("step", "train/loss").drop_nulls().rows() == [(9, 5.0), (19, 4.5), (29, 3.0)]
    assert curves.select("step", "val/ndcg@10").drop_nulls().rows() == [(9, 0.1), (19, 0.2), (29, 0.3)]


def test_curves_of_a_run_that_diverged_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "csv" / "metrics.csv").write_text("epoch,step,train/loss\n0,9,5.0\n0,19,nan\n")
    assert RunFiles(tmp_path).curves["train/loss"].to_list() == [5.0, None]


def without_metrics(run: Path) -> None:
    (run / "metrics.json").unlink()


def without_checkpoint(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def with_broken_results(run: Path) -> None:
    (run / "per_user.parquet").write_bytes((run / "per_user.parquet").read_bytes()[:100])


def of_an_older_layout(run: Path) -> None:
    record = json.loads((run / "metrics.json").read_text())
    del record["train"], record["upstream"], record["versions"], record["val"]
    (run / "metrics.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("spoil", "title", "sentence"),
    [
        (without_metrics, "Metrics", "The run has no metrics.json: its training did not end."),
        (without_checkpoint, "The gate at work", "The model could not be asked:"),
        (with_broken_results, "Slices", "a file of the run could not be read: ComputeError"),
        (
            of_an_older_layout,
            "Speed and memory",
            "metrics.json says nothing of the training; it was made by an older version.",
        ),
    ],
)
def test_what_a_run_lacks_is_said(
    spoil: Callable[[Path], None], title: str, sentence: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "msmrec" / "seed=0"
    shutil.copytree(runs["msmrec"], run)
    spoil(run)
    report_verb([str(run)])
    html = (run / "report.html").read_text()
    left = html[html.index('id="left-out"') :]
    assert f"<dt>{title}</dt><dd>{sentence}" in left
    assert "training-curves" in html and "Configuration" in html


def test_one_line_where_there_is_no_run(tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such folder"):
        report_verb([str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="no run in it or below it"):
        report_verb([str(tmp_path)])
    with pytest.raises(InputError, match="holds runs but is none"):
        report_verb([str(runs["sasrec"].parent)])
    with pytest.raises(InputError, match=r"name an \.html file"):
        compare_verb([str(runs["sasrec"]), "--page", str(tmp_path / "page.pdf"), "--resamples=200"])


def test_training_does_not_fail_for_want_of_the_extra(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from msmrec.report.run_page import report_of_training

    monkeypatch.setattr(pages, "find_spec", lambda name: None)
    said = report_of_training(runs["sasrec"])
    assert "was not written: no page without jinja2 and bokeh: pip install 'msmrec[report]'" in said


def test_a_page_holds_what_it_is_given(tmp_path: Path) -> None:
    def lacks() -> list[Any]:
        raise Missing("There is none.")

    figure = Figure(
        "F",
        [{"kind": "points", "x": [1], "y": [2], "hover": ["</script><b>"], "size": 5, "alpha": 1}],
        {"title": "x"},
        {"title": "y"},
        "alt",
    )
    page = Page("T", "<i>", [("n", "1", "")], [])
    page.add("One", lambda: [Prose(EVIL), Table("<b>", ["a", "b"], [[EVIL, "1"]], frozenset({1})), figure])
    page.add("Two", lacks)
    write_page(page, tmp_path / "page.html")
    with browser_page() as shown:
        shown.goto((tmp_path / "page.html").as_uri())
        shown.wait_for_function("document.querySelector('[data-drawn]')")
        assert (
            shown.title() == "T" and EVIL in shown.inner_text("main") and "There is none." in shown.inner_text("main")
        )


def test_the_pages_numbers_are_those_of_compare(pages_of: dict[str, Path], runs: dict[str, Path]) -> None:
    table = compare([runs["sasrec"], runs["msmrec"]], [], "sasrec_ml100k", resamples=200)
    html = pages_of["compare"].read_text()
    for row in table.rows:
        for cell in row.cells:
            assert cell and f"{cell.mean:.4f}" in html
    assert write_report(runs["sasrec"]).broken == []


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"split": "leave_one_out", "ratios": [0.8, 0.1, 0.1]}, "the last item of each user"),
        ({"split": "global_time", "ratios": [0.7, 0.1, 0.2]}, "the last 20% in time"),
        ({"split": "user_ratio", "ratios": [0.7, 0.0, 0.3]}, "the last 30% of each user's ratings"),
        ({"split": "user_random", "ratios": [0.8, 0.075, 0.125]}, "12.5% of each user's ratings, drawn at random"),
        ({"split": "global_time"}, "the last part in time"),  # of an older layout
    ],
)
def test_a_page_says_how_the_test_part_was_drawn(protocol: dict[str, Any], words: str, tmp_path: Path) -> None:
    dataset = {"name": "toys", "num_users": 1000, "num_items": 9}
    record = {"config": "a", "dataset": dataset, "protocol": protocol, "test": {}, "seed": 0}
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    assert _header(RunFiles(tmp_path))[0].endswith(f"1,000 users, 9 items; tested on {words}; seed 0.")


def test_an_order_is_no_time() -> None:
    times = pl.DataFrame({"timestamp": [10**9, 10**9 + 86_400]})
    assert [figure.title for figure in _times(times)] == ["Ratings over time"]
    assert _times(pl.DataFrame({"timestamp": [0, 1_000_000]})) == []  # rows counted, where a file has no times
