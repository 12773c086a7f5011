"""How a comparison is written: Markdown, LaTeX, CSV, a picture."""

import csv
import re
from pathlib import Path

import pytest
from tests.evaluation.written_runs import random_hits, small, write_config, write_run

from msmrec.artifacts import InputError
from msmrec.evaluation.comparison_plot import plot
from msmrec.evaluation.comparison_table import escape_latex, render


def test_formats(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "seed=0", [1, 0, 1, 0], "a_50%_&|")
    write_run(tmp_path / "a" / "seed=1", [1, 0, 0, 0], "a_50%_&|")
    write_run(tmp_path / "b" / "seed=0", [1, 1, 1, 0], "b")
    write_config(tmp_path / "b" / "seed=1")
    table = small(tmp_path, baseline="a_50%_&|", metrics=["hit_rate@10", "coverage"])
    markdown = render(table, "markdown").splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in markdown[:5]} == {7}
    assert markdown[2].startswith(r"| `a_50%_&\|` | 2 | 0.3750† ± 0.1768 [0.0000, 0.7500] | - | **0.5000**")
    assert markdown[3].startswith("| `b` | 1 | **0.7500** [") and "| +0.3750 (p " in markdown[3]
    latex = render(table, "latex").splitlines()
    body = [line for line in latex if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {5}
    assert r"\texttt{a\_50\%\_\&|} & 2 & 0.3750$^\dagger$ $\pm$ 0.1768" in body[1]
    assert not re.search(r"(?<!\\)[_%#]|[±†Δ]", "\n".join(latex[1:]))
    first, second, gap = csv.DictReader(render(table, "csv").splitlines())
    assert first["config"] == "a_50%_&|" and float(first["hit_rate@10_sd"]) == pytest.approx(0.176777)
    assert float(second["hit_rate@10_difference"]) == pytest.approx(0.375) and second["hit_rate@10_sd"] == ""
    assert gap["hit_rate@10"] == "" and "unfinished" in gap["gap"]


def test_every_sign_is_escaped_once() -> None:
    assert escape_latex(r"a_b\{50%} ~^") == r"a\_b\textbackslash{}\{50\%\} \textasciitilde{}\textasciicircum{}"


@pytest.mark.parametrize("x", [None, "model.init_args.k"])
def test_plot(tmp_path: Path, x: str | None) -> None:
    pytest.importorskip("matplotlib")
    for k in (8, 16):
        write_run(tmp_path / "runs" / str(k), random_hits(0.3, k), model__init_args={"dropout": 0.1, "k": k})
    table = small(tmp_path / "runs", x=x)
    plot(table, tmp_path / "p.svg", x)
    plot(table, tmp_path / "p.png", x)
    assert "<svg" in (tmp_path / "p.svg").read_text()
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"name a \.png or \.svg"):
        plot(table, tmp_path / "p.gif", x)


def test_plot_without_matplotlib_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    write_run(tmp_path / "a", [1, 0])
    with pytest.raises(InputError, match=r"msmrec\[plot\]"):
        plot(small(tmp_path), tmp_path / "p.png")
