"""A mistake in a config is a sentence: the key, what is wrong, what would be right; --help explains every field."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from msmrec import classes
from msmrec.arguments import CONFIGS, joined, layers
from msmrec.artifacts import InputError
from msmrec.cli import build
from msmrec.data.datamodule import RecDataModule
from msmrec.data.root import find
from msmrec.data.sources.simulated import Simulated
from msmrec.parser_errors import explain, refuse_empty

ROOT = Path(__file__).parents[1]
SASREC, MSMREC = "sasrec_ml100k.yaml", "msmrec_ml100k.yaml"
SIDES = "--model.init_args.text.modalities"


@pytest.mark.parametrize(
    ("config", "words", "sentence"),
    [
        (SASREC, ["--model.init_args.drpout", "0.1"], "model: SASRec has no drpout; did you mean dropout?"),
        (SASREC, ["--model.init_args.dropout", "x"], "model.dropout: x is no float"),
        (SASREC, ["--data.max_seq_len", "abc"], "data.max_seq_len: abc is no int"),
        (SASREC, ["--seed_everything", "x"], "seed_everything: x is no bool or int"),
        (SASREC, ["--data.protocol.ratios", "[1,2]"], "data.protocol.ratios: [1, 2] is no tuple with 3 elements"),
        (SASREC, ["--trainer.max_epoch=3"], "trainer.max_epoch: there is no such key; did you mean max_epochs?"),
        (SASREC, ["--run_dirr", "x"], "run_dirr: there is no such key; did you mean run_dir?"),
        (SASREC, ["--trainer.callbacks+", "Foo"], "trainer.callbacks: there is no Foo"),
        (
            SASREC,
            ["--model.init_args.loss", "foo"],
            "model.loss: foo is none of softmax, sampled_softmax, bce, gbce",
        ),
        (
            MSMREC,
            ["--model.init_args.text.noise", '{"kind": "swp"}'],
            "model.text.noise.kind: swp is none of swap, truncate, corrupt",
        ),
        (
            MSMREC,
            ["--model.init_args.text.encoder", "Foo"],
            "model.text.encoder: there is no Foo; known: SentenceEncoder, ServerEncoder, TfidfSvdEncoder,"
            " TransformersEncoder",
        ),
        (MSMREC, ["--model.init_args.text.knowlege", "[x]"], "model.text: ItemText has no knowlege; did you mean"),
        (
            SASREC,
            ["--model", "nobodys.model.GRU"],
            "model: nobodys.model cannot be imported; a class of your own is named by",
        ),
        (SASREC, ["--model", "msmrec.models.sasrec.SASRecc"], "model: msmrec.models.sasrec has no SASRecc; a class of"),
        (SASREC, ["--model", "torch.nn.Linear"], "model: torch.nn.Linear is no Module"),
        (SASREC, ["--trainer.precision", "fp16"], "trainer.precision: fp16 is none of transformer-engine, "),
        (SASREC, ["--trainer.logger+", "TensorBoardLogger"], "trainer.logger: TensorBoardLogger needs save_dir"),
        (SASREC, ["--early_stopping", "null"], "early_stopping: null is none of its values"),
        (SASREC, ["--seed_everything=-1"], "seed_everything -1 is not in bounds"),
        (MSMREC, [SIDES, '[{"nme": "a"}]'], "model.text.modalities: Modality has no nme; did you mean name?"),
        (MSMREC, [SIDES, '[{"name": "a", "prose": "b"}]'], "model.text.modalities.prose: b is no list"),
        (MSMREC, [SIDES, '[{"prose": ["b"]}]'], "model.text.modalities: Modality needs name"),
        (MSMREC, [SIDES, "film"], "model.text.modalities: film is none of films, books, products"),
    ],
)
def test_mistakes_on_the_command_line(config: str, words: list[str], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        build(["--config", config, *words], save=True)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("trainer: {max_epoch: 3}", "trainer.max_epoch: there is no such key; did you mean max_epochs?"),
        (
            "data: {source: {class_path: Table, init_args: {interactions: x.csv, scale: [1]}}}",
            "data.source.scale: [1] is no tuple with 2 elements",
        ),
        ("data: {protocol: {hidden: 3}}", "data.protocol.hidden: there is no such key; did you mean hidden_items?"),
        ("model: {init_args: {dropout: }}", "model.dropout: null is none of its values; give one"),
        ("model: {init_args: {cutoffs: null}}", "model.cutoffs: null is none of its values; give one"),
        ("model: {init_args: {drpout: 1}}", "model: SASRec has no drpout; did you mean dropout?"),
        ("modle: {x: 1}", "modle.x: there is no such key; did you mean model?"),
        ("model: {class_path: SASRek}", "model: there is no SASRek; known: AutoInt, DCN, DCNv2, "),
        ("trainer: {\n  max_epochs: [1\n}", "config PATH, line 3: expected ',' or ']'"),
        ("- a", "config PATH: holds no keys"),
        ("model: {class_path: SASRec, init_args: }", "model.init_args: no keys and values; indent some beneath it"),
        ("model: null", "model: missing; name a config that has it"),
        ("", "config PATH: is empty"),
    ],
)
def test_mistakes_in_a_file(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("PATH", str(path)))
    with pytest.raises(InputError) as caught:
        build(["--config", SASREC, "--config", str(path)], save=False)
    assert str(caught.value).startswith(sentence.replace("PATH", str(path)))


def test_a_source_without_its_class_is_told_the_classes(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: SASRec\ndata: {source: {interactions: x.csv}}")
    with pytest.raises(InputError, match=r"^data\.source: needs class_path, which is one of Amazon, .*, Table$"):
        build(["--config", str(tmp_path / "mine.yaml")], save=False)


def test_runs_that_need_each_other_are_refused(tmp_path: Path) -> None:
    """Each would wait for the other's lock."""
    for name, need in (("a", "b"), ("b", "a")):
        text = f"model: SASRec\ndata: {{source: Simulated}}\nneeds: [{tmp_path / need}.yaml]\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^needs: b needs a needs b, which is a circle; take one of them out$"):
        build(["--config", str(tmp_path / "a.yaml")], save=False)


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No shell has read what a config says; Polars would expand ~, and Python would not."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "kb.jsonl").touch()
    data = RecDataModule(Simulated(), root="~/data", cache="~/cache")
    assert (data.root, data.cache) == (tmp_path / "data", tmp_path / "cache")
    assert find("~/kb.jsonl", data.root) == tmp_path / "kb.jsonl"


def test_what_the_parser_says_otherwise_is_kept_in_one_line() -> None:
    assert explain(ValueError("something\n  else")) == "something else"


CONFIGURED = [one for one in vars(classes).values() if isinstance(one, type)]


@pytest.mark.parametrize("one", [*CONFIGURED, RecDataModule], ids=lambda one: one.__name__)
def test_help_explains_every_field(one: type) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(one, "it")
    fields = [action for action in parser._actions if action.dest.startswith("it.")]
    assert not [field.dest for field in fields if not (field.help or "").strip()]


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_help_alone_is_a_page_without_torch(script: str) -> None:
    code = f"""
import runpy, sys
sys.argv = [{script!r}, "--help"]
try:
    runpy.run_path({str(ROOT / script)!r}, run_name="__main__")
except SystemExit as end:
    assert end.code == 0
assert not {{"torch", "lightning", "polars"}} & set(sys.modules)
"""
    page = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert page.startswith(f"python {script} --") and max(map(len, page.splitlines())) <= 120
    if script == "train.py":
        there = [str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")]
        listed = re.findall(r"^    (\S+\.yaml) +\S", page, re.M)
        assert listed == sorted(set(there) - {"base.yaml", "sweeps/msmrec_ml1m.yaml"})


def test_a_config_misspelt_is_said_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"config msmrec_ml1.yaml: neither here nor in .*did you mean msmrec_ml1m.yaml\?"
    ):
        build(["--config", "msmrec_ml1.yaml"], save=False)


def test_only_yaml_is_no_part_of_a_configs_name() -> None:
    assert layers("my.v2+sub/a.yaml+b.yml+lr0.1") == ["my.v2.yaml", "sub/a.yaml", "b.yml", "lr0.1.yaml"]
    assert joined(layers("my.v2+sub/a.yaml+b.yml+lr0.1")) == "my.v2+a+b+lr0.1"
    assert joined(["my.v2"]) == "my.v2"


class Stranger:
    """A class of a user's own, with types that only a checker sees."""

    def __init__(self, size: "Unseen", width: int = None, depth: int = 1) -> None: ...  # type: ignore # noqa


def test_null_is_refused_where_the_type_is_known() -> None:
    refuse_empty(f"{__name__}.Stranger", {"size": None, "width": None})
    refuse_empty("msmrec.models.sasrec.SASRec", {"temperature": None, "num_items": None})
    with pytest.raises(InputError, match=r"model\.num_layers: null"):
        refuse_empty("msmrec.models.msmrec.MSMRec", {"num_layers": None})
    with pytest.raises(InputError, match=r"model\.expert_dim: null"):
        refuse_empty("msmrec.models.msmrec.MSMRec", {"expert_dim": None})
