"""Suites: every line of the shipped ones, what a plan says, and a suite from nothing to its table on the tiny world."""

import json
import os
import re
import shlex
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_configs import TINY_DATA

from msmrec.arguments import CONFIGS, find_config, overrides
from msmrec.artifacts import InputError
from msmrec.cli import build, train
from msmrec.data.sources.simulated import Simulated
from msmrec.data.sources.table import Table
from msmrec.finished_run import evaluate
from msmrec.suite import suite
from msmrec.suite_file import Line, read_suite
from msmrec.suite_plan import lacks, plan, upstream

SUITES = sorted(path.stem for path in (CONFIGS / "suites").glob("*.txt"))
ROOT = CONFIGS.parent


def lines_of_all() -> dict[str, Line]:
    """By name; the same name is the same line wherever it stands."""
    found: dict[str, Line] = {}
    for name in [*SUITES, str(ROOT / "slurm" / "ablations.txt")]:
        for line in read_suite(name).lines:
            assert found.setdefault(line.name, line).args == line.args, line.name
    return found


def test_a_name_is_one_run_and_names_that_are_configs_are_these() -> None:
    found = lines_of_all()
    assert len(SUITES) == 8 and len(found) > 150
    for name, line in found.items():
        config = "+".join(path.stem for path in line.configs)
        plain = len(line.args) == 2 * len(line.configs)
        assert (name == config) <= plain, name  # or it would be another run than train.py's
        assert line.dataset


def test_every_line_parses(tiny_root: Path, cache: Path) -> None:
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache), "--data.protocol.min_item_count=0"]
    parser = build(["--config", "sasrec_ml100k.yaml", *args], save=False).parser
    seen: set[tuple[str, ...]] = set()
    for line in lines_of_all().values():
        given = dict(overrides(line.args))
        if needed := given.get("ckpt_path"):
            assert needed == "+".join(Path(part).stem for part in given["needs+"].split("+")), line.name
        # what one line shows of a config and its overrides need not be shown again; datasets are alike
        kinds = [path.stem.rpartition("_")[0] or path.stem for path in line.configs]
        pieces = {(kinds[0], part) for part in [*kinds[1:], *(f"{k}={v}" for k, v in given.items() if k != "needs+")]}
        if not pieces <= seen:
            parser.parse_args([str(find_config(word)) for word in line.args])
            seen |= pieces
    assert len(seen) > 40


@pytest.fixture
def two(tmp_path: Path, tiny_root: Path, cache: Path) -> Any:
    """A suite on the tiny world: one line is wrong, one needs what is not there, two share an upstream run."""
    (tmp_path / "base.yaml").write_text(
        "# Two trainings in one.\n# 3 minutes on one thread.\nmodel: {class_path: SASRec}\n"
        'data: {source: {class_path: MovieLens, init_args: {release: "ml-100k"}}}\n'
    )
    (tmp_path / "over.yaml").write_text(f"needs: [{tmp_path}/base.yaml]\n")
    file = tmp_path / "tiny.txt"
    base = f"{tmp_path}/base.yaml"
    file.write_text(
        "# metrics: ndcg@10, hit_rate@10\n# baseline: nobody, base\n\n"
        f"base {base}\n"
        f"wide {base} --config {tmp_path}/over.yaml --model.init_args.embedding_dim=32 # 90 s\n"
        f"again {base} --trainer.max_epochs=0 --needs+={base} --ckpt_path=base --model.init_args.dropout=0.4\n"
        f"wrong {base} --model.init_args.dropot=0.1\n"
        f"far {base} --model.init_args.lr=0.1 # 2 h; needs key, gpu\n"
    )
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache), "--data.protocol.min_item_count=0"]
    return file, tmp_path / "runs", args


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def in_this_process(args: list[str], **_: Any) -> int:
    """Instead of the suite's process of its own for every run, which takes seconds to start."""
    try:
        train(args)
    except InputError:
        return 2
    return 0


def test_a_suite_from_nothing_to_its_table(
    two: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, runs, args = two
    args = [*args, "--trainer.max_epochs=1"]
    with pytest.raises(InputError, match=r"1 of 1 runs failed: see .*wrong/seed=0/suite.log"):
        suite(str(file), rows="wrong", runs=runs, more=args)
    said = capsys.readouterr().out
    assert "wrong/seed=0 ... failed (exit status 2): msmrec: " in said and "dropot" in said
    assert "wrong, seed 0: failed (exit status 2)" in said  # no table, but the gap
    monkeypatch.setattr("msmrec.suite.train_in_child", in_this_process)
    with pytest.raises(InputError, match=r"1 of 2 runs failed"):
        suite(str(file), rows="base,wrong,far", runs=runs, more=args)
    said = capsys.readouterr().out
    table = [line for line in said.splitlines() if line.startswith("|")]
    record = json.loads((runs / "base" / "seed=0" / "metrics.json").read_text())
    assert "base" in table[2] and f"{record['test']['ndcg@10']:.4f}" in table[2]
    assert any("wrong" in line and "failed" in line for line in table)  # the gap is in the table
    assert any("far" in line and "no OPENAI_API_KEY or OPENAI_BASE_URL, no GPU" in line for line in table)
    assert f"python -m msmrec compare --names folder {runs}/base --metrics ndcg@10,hit_rate@10 --baseline base" in said
    # what is finished stays; the checkpoint of a needed run is evaluated as it is
    before = (runs / "base" / "seed=0" / "metrics.json").stat().st_mtime_ns
    suite(str(file), rows="base,again", runs=runs, more=[a for a in args if "max_epochs" not in a])
    said = capsys.readouterr().out
    assert "1 to run, 1 finished, 0 skipped" in said and "[1/1]" in said
    assert (runs / "base" / "seed=0" / "metrics.json").stat().st_mtime_ns == before
    again = json.loads((runs / "again" / "seed=0" / "metrics.json").read_text())
    assert again["test"] == record["test"] and again["train"]["epochs"] == 0
    assert again["upstream"] == {"base": str(runs / "base" / "seed=0")}
    # a run of another setting is no run of this line
    with pytest.raises(InputError, match=r"base/seed=0 holds a run with trainer.max_epochs 1, not 7"):
        suite(str(file), rows="base", runs=runs, more=["--trainer.max_epochs=7"])
    with pytest.raises(InputError, match=r"holds a run with data.source.init_args.num_users 120, not 99"):
        suite(str(file), rows="base", runs=runs, more=["--data.source.init_args.num_users", "99"])


def test_a_plan_says_what_runs_and_for_how_long(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file, runs, _ = two
    other = runs / "wrong" / "seed=5"
    other.mkdir(parents=True)
    (other / "metrics.json").write_text(json.dumps({"train": {"seconds": 600}}))
    suite(str(file), seeds="0,1", runs=runs, dry_run=True)
    said = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    told = {line[0]: line[1] for line in said}
    assert told["base/seed=0"].split("  ")[0] == "to run" and "3 min" in told["base/seed=0"]
    assert "the head of base.yaml" in told["base/seed=1"]
    assert "2 min" in told["wide/seed=0"] and "tiny.txt" in told["wide/seed=0"]  # 90 s, stated in the suite
    assert "10 min" in told["wrong/seed=1"] and "1 earlier run" in told["wrong/seed=1"]
    assert told["far/seed=1"].startswith("skipped: no OPENAI_API_KEY or OPENAI_BASE_URL, no GPU")
    assert told["again/seed=0"].split()[2:] == ["?", "unknown"]  # without an epoch it is another time than the head's
    # base is a line itself, so it is not counted as needed a second time: 2 x (3 + 1.5 + 10)
    assert not (runs / "base").exists()
    assert told["8"] == "to run, 0 finished, 2 skipped; about 29 min, and 2 of unknown time"
    suite(str(file), rows="base", runs=runs, dry_run=True, more=["--trainer.max_epochs=50"])
    # the base.yaml of all runs says 100
    assert "2 min     the head of base.yaml, 50 of 100 epochs" in capsys.readouterr().out
    suite(str(file), rows="again", runs=runs, dry_run=True)
    assert "; about 3 min, and 1 of unknown time" in capsys.readouterr().out  # what it needs is known
    (runs / "base" / "seed=0").mkdir(parents=True)
    (runs / "base" / "seed=0" / "metrics.json").touch()
    suite(str(file), rows="again", runs=runs, dry_run=True)
    assert "1 to run, 0 finished, 0 skipped; 1 of unknown time" in capsys.readouterr().out
    (runs / "base" / "seed=0" / "metrics.json").unlink()
    chosen = read_suite(str(file))
    tasks = plan(chosen, [line for line in chosen.lines if line.name == "wide"], [3], runs, [])
    assert upstream(tasks, runs) == {runs / "base" / "seed=3": (3.0, "the head of base.yaml")}


def test_mistakes_are_one_line(two: Any, tmp_path: Path) -> None:
    file, runs, _ = two
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        r"known: .*msmrec_table4": ("no_such_suite", {}),
        "no such row; rows: base, wide": (str(file), {"rows": "bose"}),
        "--datasets ml-9: not in tiny, which has ml-100k": (str(file), {"datasets": "ml-9"}),
        "give whole numbers": (str(file), {"seeds": "0-2"}),
    }
    for words, (name, options) in cases.items():
        with pytest.raises(InputError, match=words):
            suite(name, runs=runs, **options)
    for text, words in {
        "one a.yaml\n": r"bad.txt:1: config a.yaml: neither here",
        "one": "bad.txt:1: one has no config",
        "one sasrec_ml1m.yaml\none sasrec_ml1m.yaml": "bad.txt:2: a second line named one",
        "one sasrec_ml1m.yaml --x='": "bad.txt:1: No closing quotation",
        "one sasrec_ml1m.yaml # needs gold": "bad.txt:1: needs gold; known: gpu",
        "one sasrec_ml1m.yaml # needs gpu, weights": "bad.txt:1: needs weights; known: gpu, key, weights MODEL",
        "one sasrec_ml1m.yaml # needs weights a b": "bad.txt:1: needs weights a b; known",
        "one sasrec_ml1m.yaml # needs gpu 2": "bad.txt:1: needs gpu 2; known",
        "# nothing": "no lines",
    }.items():
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(InputError, match=words):
            read_suite(str(tmp_path / "bad.txt"))


def test_a_comma_too_many_is_no_need(tmp_path: Path) -> None:
    (tmp_path / "tiny.txt").write_text(
        "one sasrec_ml1m.yaml # 2 h; needs gpu, host  a.b, \ntwo sasrec_ml1m.yaml # needs "
    )
    assert [line.needs for line in read_suite(str(tmp_path / "tiny.txt")).lines] == [("gpu", "host a.b"), ()]


class Own(Simulated):
    """A source that no short name leads to."""

    @property
    def name(self) -> str:
        return "own"


class Shop(Table):
    """A table of one's own."""


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (["{class_path: MovieLens, init_args: {release: ml-100k}}"], "ml-100k"),
        (["MovieLens"], "ml-1m"),
        (["{class_path: MovieLens, init_args: {release: ml-100k}}", None], "ml-100k"),
        (["{class_path: MovieLens}", "{init_args: {release: ml-20m}}"], "ml-20m"),
        (["{class_path: Amazon, init_args: {category: Toys}}", "{init_args: {release: '2018'}}"], "Toys_2018"),
        (["{class_path: Amazon, init_args: {category: Toys}}", "MovieLens"], "ml-1m"),  # whose arguments are others
        (["{class_path: tests.test_suite.Own, init_args: {num_users: 9}}"], "own"),
        (["{class_path: Table, init_args: {interactions: a.csv, dataset: shop}}", "tests.test_suite.Shop"], "shop"),
    ],
)
def test_a_source_is_what_the_configs_say_together(sources: list[str | None], name: str, tmp_path: Path) -> None:
    for k, source in enumerate(sources):
        text = f"data: {{source: {source}}}" if source else "trainer: {max_epochs: 1}"
        (tmp_path / f"{k}.yaml").write_text(text + "\n")
    layers = " --config ".join(str(tmp_path / f"{k}.yaml") for k in range(len(sources)))
    (tmp_path / "tiny.txt").write_text(f"one {layers}\n")
    assert read_suite(str(tmp_path / "tiny.txt")).lines[0].dataset == name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"one --config sasrec_ml1m.yaml", r"mine\.txt:1: config --config: cannot be read"),
        (b"one broken.yaml", r"mine\.txt:1: config .*broken\.yaml, line 1: expected ',' or ']'"),
        (b"\xff\xfe", r"mine\.txt: no text in UTF-8"),
    ],
)
def test_a_suite_that_cannot_be_read_is_one_line(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text("a: [1")
    Path("mine.txt").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_suite("mine.txt")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("model: {class_path: SASRec}", r"one: no data\.source in .*a\.yaml"),
        ("data: null", r"one: no data\.source in .*a\.yaml"),
        ("data: {source: nowhere.Own}", r"one: data\.source nowhere\.Own: No module named 'nowhere'"),
        ("data: {source: tests.test_suite.Ours}", r"one: data\.source tests\.test_suite\.Ours: .*no attribute"),
        ("data: {source: {class_path: MovieLens, init_args: {year: 1}}}", r"one: data\.source MovieLens: .*'year'"),
    ],
)
def test_a_source_that_is_none_is_said_before_anything_runs(config: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config + "\n")
    (tmp_path / "tiny.txt").write_text(f"one {tmp_path}/a.yaml\n")
    with pytest.raises(InputError, match=words) as caught:
        suite(str(tmp_path / "tiny.txt"), runs=tmp_path / "runs", dry_run=True)
    assert "\n" not in str(caught.value) and not (tmp_path / "runs").exists()


def test_needs_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacks("gpu") == "no GPU" and lacks("host localhost.invalid") == "localhost.invalid is out of reach"
    assert lacks("weights nobody/nothing") == "no weights of nobody/nothing, and the model hub is out of reach"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert lacks("key") is None and lacks("gpu") is None


def test_overrides_are_read_in_both_forms() -> None:
    words = shlex.split("""--config a.yaml --x=1e-3 --y [a,b] --z='{"k": 1}' --needs+=b.yaml --s text --t=true""")
    assert overrides(words) == [
        ("x", 1e-3), ("y", ["a", "b"]), ("z", {"k": 1}), ("needs+", "b.yaml"), ("s", "text"), ("t", True),
    ]  # fmt: skip


def test_a_suite_runs_as_an_array(tmp_path: Path) -> None:
    """slurm/ablations.sbatch reads a line as the suite does; a note after it is no argument."""
    (tmp_path / "srun").write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "srun").chmod(0o755)
    for name in ("visualrec_table4", "rallrec_fig3"):
        file = CONFIGS / "suites" / f"{name}.txt"
        for number, line in enumerate(read_suite(name).lines[:9]):
            slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "1"}
            slurm |= {"SLURM_ARRAY_TASK_ID": str(number), "SEEDS": "3", "VIRTUAL_ENV": "x", "RUNS": str(tmp_path)}
            environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
            command = ["bash", "slurm/ablations.sbatch", str(file)]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
            words = done.stdout.splitlines()
            given = words[words.index("--config") : words.index("--trainer.num_nodes=1")]
            place = [f"--runs={tmp_path}", "--seed_everything=3", f"--run_dir={tmp_path}/{line.name}/seed=3"]
            assert given == [*line.args, *place]


def test_the_command_that_a_layer_names_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    """Configs that are laid over others say in their head over which; each key of theirs is one there."""
    for path in CONFIGS.glob("*/*.yaml"):
        head = "\n".join(line[1:].strip() for line in takewhile(lambda line: line[:1] == "#", path.open()))
        commands = re.findall(r"^python (train|evaluate)\.py (.*)$", head.replace("\\\n", " "), re.MULTILINE)
        for script, words in commands:
            with pytest.raises(SystemExit) as status:
                {"train": train, "evaluate": evaluate}[script]([*shlex.split(words), "--print_config"])
            assert status.value.code in (0, None), path
        capsys.readouterr()
