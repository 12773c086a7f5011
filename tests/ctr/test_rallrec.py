"""RALLRec as users start it, on the tiny world: upstream runs, small Llama, 8-bit + LoRA, prompts between epochs."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tiny_configs import TINY_DATA, tiny_config, tiny_text

from msmrec.artifacts import InputError
from msmrec.cli import build, train
from msmrec.columns import TEST, TRAIN
from msmrec.ctr.head import LlamaCTR
from msmrec.ctr.language_model import Lora, answer_token, load
from msmrec.data.prepare import Dataset
from msmrec.data.samples import sample_rows
from msmrec.finished_run import evaluate, open_run
from msmrec.retrieval.callback import RetrievalCallback
from msmrec.retrieval.prompts import MOVIE_TEMPLATE
from msmrec.serving.ask_click import ClickAnswers
from msmrec.serving.export_adapter import export_adapter
from msmrec.verbs.score import main as score_verb

RALLREC = "rallrec_tiny_ml1m.yaml"
SOFT = {"profile": "", "entry": "{soft} {rating} {title}", "question": "{soft} {title}"}


@pytest.fixture(scope="module")
def world(tiny_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where everything lies; upstream runs are made by the first test that needs them and shared by the rest."""
    folder = tmp_path_factory.mktemp("rallrec")
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache), "--runs", str(folder / "runs")]
    return {"folder": folder, "args": args, "text": tiny_text(tiny_root), "cache": cache}


def start(world: dict[str, Any], name: str, *more: str, **changes: Any) -> list[str]:
    path = tiny_config(RALLREC, world["folder"], world["text"], **changes)
    path = path.rename(path.with_name(f"{name}.yaml"))
    return ["--config", str(path), *world["args"], "--run_dir", str(world["folder"] / name), *more]


@pytest.fixture(scope="module")
def trained(world: dict[str, Any]) -> Path:
    return train(start(world, "plain"))


def test_one_command_builds_all_of_it(trained: Path, world: dict[str, Any]) -> None:
    record = json.loads((trained / "metrics.json").read_text())
    assert {"auc", "log_loss", "accuracy", "accuracy_calibrated", "user_auc", "ece"} <= set(record["test"])
    assert set(record["upstream"]) == {"lightgcn_ml1m_clicks", "projector_ml1m", "tiny_llama_ml1m"}
    assert (world["folder"] / "runs" / "tiny_llama_ml1m" / "seed=0" / "model" / "model.safetensors").is_file()
    predictions = pl.read_parquet(trained / "predictions.parquet")
    dataset = Dataset(world["cache"] / "datasets" / f"{record['dataset']['name']}-{record['dataset']['fingerprint']}")
    assert len(predictions) == len(sample_rows(dataset, TEST)) > 50 and predictions["prob"].is_between(0, 1).all()
    prompts = pl.read_parquet(trained / "prompts" / "epoch=0.parquet")
    assert prompts["prompt"][0].startswith("Nothing is known") and prompts["history"].dtype.shape == (6,)
    tested = pl.read_parquet(trained / "prompts" / "test.parquet").join(predictions, on=["user_id", "item_id"])
    assert tested["prompt"].null_count() == 0 and len(tested) == min(200, len(predictions))
    report = (trained / "report.html").read_text()
    assert 'id="retrieval-before-and-after"' in report and "the model says" in report
    size = (trained / "checkpoints" / "best.ckpt").stat().st_size
    state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=False)["state_dict"]
    assert size < 1_000_000 and any("lora_" in n for n in state) and not any("embed_tokens" in n for n in state)


def test_evaluation_repeats_the_numbers(trained: Path) -> None:
    record = json.loads((trained / "metrics.json").read_text())
    again = evaluate(["--run", str(trained), "--trainer.enable_progress_bar", "false"])
    assert {k.split("/")[1]: v for k, v in again.items()} == record["test"]


def fitted(trained: Path) -> LlamaCTR:
    cli = build(["--config", str(trained / "config.yaml")], save=False)
    ckpt = str(trained / "checkpoints" / "best.ckpt")
    cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt, verbose=False, weights_only=False)
    assert isinstance(cli.model, LlamaCTR)
    return cli.model.eval()


# peft asks transformers 5 by the old name
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_score_is_the_softmax_of_two_logits_of_the_whole_model_and_padding_does_not_leak(trained: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = fitted(trained)
    loader = model.eval_loader(model.data, 2)
    batch = max(loader, key=lambda b: len(b.label))
    with torch.no_grad():
        logits = model.logits(batch)
        alone = torch.cat([model.logits(one_sample(batch, k)) for k in range(len(batch.label))])
    torch.testing.assert_close(alone, logits, atol=1e-4, rtol=1e-3)
    # The adapter that the run left, on the base model, by peft itself, with all logits of the vocabulary.
    from peft import PeftModel

    base = model.data.upstream["tiny_llama_ml1m"] / "model"
    whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), trained / "adapter").eval()
    yes, no = (answer_token(model.tokenizer, a) for a in ("Yes", "No"))
    with torch.no_grad():
        out = whole(input_ids=batch.input_ids).logits[batch.sequence, batch.last]
    wanted = torch.softmax(out[:, [yes, no]], 1)[:, 0]
    # int8 weights here, float32 there
    assert (wanted - torch.sigmoid(logits)).abs().max() < 0.03


def one_sample(batch: Any, k: int) -> Any:
    length, parts = int(batch.last[k]) + 1, batch._asdict()
    one = {name: parts[name][k : k + 1] for name in ("user_id", "target_item", "label", "last")}
    cut = {name: parts[name][k : k + 1, :length] for name in ("input_ids", "soft_item")}
    return batch._replace(**one, **cut, sequence=torch.zeros(1, dtype=torch.long))


def test_8_bit_weights_are_multiplied_as_they_are(trained: Path) -> None:
    layers = [layer for layer in fitted(trained).modules() if type(layer).__name__ == "Linear8bitLt"]
    assert len(layers) == 2 * 7
    for layer in layers:
        inputs = torch.randn(5, layer.in_features)
        found, state = layer.eval()(inputs), layer.state
        weights = state.CB.float() * state.SCB.float()[:, None] / 127
        torch.testing.assert_close(found, inputs @ weights.T)


def test_targets_that_share_prompts_train_and_score(world: dict[str, Any], trained: Path) -> None:
    changes = {"model.init_args.retriever": {"channels": "recent", "k": 6, "window": 4}}
    run = train(start(world, "window", **changes))
    record = json.loads((run / "metrics.json").read_text())
    plain = pl.read_parquet(trained / "predictions.parquet").select("user_id", "item_id").sort("user_id", "item_id")
    shared = pl.read_parquet(run / "predictions.parquet").select("user_id", "item_id").sort("user_id", "item_id")
    assert shared.equals(plain)
    assert {k.split("/")[1]: v for k, v in evaluate(["--run", str(run)]).items()} == record["test"]
    # The same samples, each in a prompt of its own.
    model = fitted(run)
    loader = model.eval_loader(model.data, 2)
    assert (loader.count > 1).any()
    model.retriever.window = 1
    apart = model._prompt_loader(model.data, loader.rows, loader.history, 4096, shuffle=False)
    with torch.no_grad():
        both = [torch.cat([model.logits(batch) for batch in made]) for made in (loader, apart)]
        items = [torch.cat([batch.user_id * 1000 + batch.target_item for batch in made]) for made in (loader, apart)]
    torch.testing.assert_close(both[0][items[0].argsort()], both[1][items[1].argsort()], atol=1e-4, rtol=1e-4)


def test_prompts_whose_ratings_have_one_order_are_trained_on_once(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted(trained)
    data = model.trainer.datamodule
    model.augment, model.resample = True, False
    rows = sample_rows(data.dataset, TRAIN)[:60]
    for channels, times in (("relevant", 2), ("recent", 1)):
        model.retriever.channels = channels
        made = rows, model.retriever.choose(data, rows)
        monkeypatch.setattr(model.histories, "for_training", lambda *_, made=made: made)
        assert len(model.train_loader(data).rows) == times * len(rows), channels


def test_activations_are_recomputed_where_asked(trained: Path, world: dict[str, Any]) -> None:
    base = str(world["folder"] / "runs" / "tiny_llama_ml1m" / "seed=0" / "model")
    for asked in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            made: Any = load(base, MOVIE_TEMPLATE, "none", Lora(0, 16, 0.0, []), asked)
        assert [layer.gradient_checkpointing for layer in made.decoder.layers] == [asked, asked]


@pytest.mark.parametrize("quantisation", ["none", "8bit"])
def test_recomputed_activations_give_the_same_gradients(quantisation: Any, world: dict[str, Any]) -> None:
    base = str(world["folder"] / "runs" / "tiny_llama_ml1m" / "seed=0" / "model")
    ids = torch.arange(5, 45).view(2, 20)
    places = torch.tensor([0, 1]), torch.tensor([19, 12])
    gradients = []
    for asked in (False, True):
        torch.manual_seed(0)
        made = load(
            base, MOVIE_TEMPLATE, quantisation, Lora(4, 16, 0.0, ["q_proj", "v_proj"]), asked, dtype=torch.float32
        )
        layers = [layer for layer in made.decoder.modules() if hasattr(layer, "lora_A")]
        for layer in layers:
            torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)  # zero at the start, and A's gradient too
        made.decoder.train()
        made.states(places, inputs_embeds=made.decoder.get_input_embeddings()(ids)).square().sum().backward()
        found = [p.grad for name, p in made.decoder.named_parameters() if "lora_" in name]
        assert len(layers) == 4 and all(g is not None and g.abs().sum() > 0 for g in found)
        gradients.append(torch.cat([g.flatten() for g in found]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


class Killed(Exception):
    pass


def kill_in_epoch(epoch: int, args: list[str]) -> None:
    def kill(self: LlamaCTR) -> None:
        if self.current_epoch == epoch:
            raise Killed
        original(self)

    original = LlamaCTR.on_train_epoch_start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaCTR, "on_train_epoch_start", kill)
        with pytest.raises(Killed):
            train(args)


def test_killed_between_epochs_it_goes_on_with_the_prompts_it_had(world: dict[str, Any], trained: Path) -> None:
    # The schedule is constant, so that a run of one epoch is the first half of a run of two.
    changes = {"model.init_args.schedule": "constant"}
    whole = train(start(world, "whole", **changes))
    args = start(world, "halves", **changes)

    kill_in_epoch(1, args)
    kept = world["folder"] / "halves" / "prompts" / "epoch=1.parquet"
    before = kept.read_bytes()
    halves = train(args)
    assert kept.read_bytes() == before  # read, not made again
    one, two = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"] for run in (whole, halves)
    )
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert json.loads((whole / "metrics.json").read_text())["protocol"]["retrieval"]["retrieval/overlap@6"] == 1.0


@pytest.mark.parametrize(("every", "killed", "epochs", "builds"), [(2, 4, 5, [0, 2, 4]), (3, 5, 7, [0, 3, 6])])
def test_a_killed_run_makes_its_next_build_when_it_is_due(
    every: int, killed: int, epochs: int, builds: list[int], world: dict[str, Any], trained: Path
) -> None:
    changes = {
        "trainer.callbacks.0.init_args.every_n_epochs": every, "trainer.max_epochs": epochs,
        "model.init_args.resample": False, "trainer.limit_train_batches": 1, "trainer.limit_val_batches": 1,
    }  # fmt: skip
    name, built = f"every-{every}", []
    args, make = start(world, name, **changes), RetrievalCallback._build

    def noted(self: RetrievalCallback, model: Any, data: Any, epoch: int) -> Any:
        built.append((epoch, model.current_epoch))
        return make(self, model, data, epoch)

    kill_in_epoch(killed, args)
    prompts = world["folder"] / name / "prompts"
    (prompts / f"epoch={builds[-1]}.parquet").unlink(missing_ok=True)  # where it was killed after that build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RetrievalCallback, "_build", noted)
        train(args)
    assert (builds[-1], builds[-1]) in built  # for the epoch that it is due in, and then
    assert len(list(prompts.glob("epoch=*.parquet"))) == len(builds)


def test_joint_training_moves_the_vectors_and_the_retrieval(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, make = [], RetrievalCallback._make_vectors

    def noted(self: RetrievalCallback, data: Any, model: Any) -> None:
        steps.append((model.trainer.state.fn, model.trainer.global_step))
        make(self, data, model)

    monkeypatch.setattr(RetrievalCallback, "_make_vectors", noted)
    joint = {"text": world["text"], "collaborative": "lightgcn_ml1m_clicks"}
    run = train(
        start(
            world,
            "joint",
            **{
                "model.init_args.joint": joint,
                "model.init_args.joint_weight": 1.0,
                "model.init_args.prompt": SOFT,
                "model.init_args.lr": 0.01,
                "model.init_args.retriever.channels": "relevant",
                "model.init_args.retriever.vectors.parts": ["aligned"],
            },
        )
    )
    record = json.loads((run / "metrics.json").read_text())
    assert record["protocol"]["retrieval"]["retrieval/overlap@6"] < 1.0
    fitting = [step for stage, step in steps if stage == "fit"]
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    assert fitting[0] == 0 and fitting[-1] == last  # the last epoch is validated with the vectors that it ends with
    assert evaluate(["--run", str(run)])["test/auc"] == record["test"]["auc"]


def test_settings_that_would_mislead_are_refused(world: dict[str, Any], trained: Path) -> None:
    with pytest.raises(InputError, match="stale prompts"):
        train(start(world, "stale", **{"trainer.reload_dataloaders_every_n_epochs": 0}))
    with pytest.raises(InputError, match="needs a RetrievalCallback"):
        train(start(world, "bare", **{"trainer.callbacks": []}))
    with pytest.raises(InputError, match="one needs the other"):
        train(start(world, "soft", **{"model.init_args.prompt": {"entry": "{soft} {title}"}}))
    with pytest.raises(InputError, match=r"set it to false where retriever\.window is above 1"):
        recent = {"channels": "recent", "window": 4}
        train(start(world, "mixed", **{"model.init_args.retriever": recent, "model.init_args.augment": True}))
    with pytest.raises(InputError, match=r"tokens of the answer 'Certainly not'"):
        train(start(world, "long", **{"model.init_args.prompt": {"yes": "Certainly not"}}))
    with pytest.raises(InputError, match=r"could not be loaded .* set HF_TOKEN"):
        train(start(world, "gone", **{"model.init_args.base": "no-such/model"}))
    with pytest.raises(InputError, match="is 8, but the vectors of lightgcn_ml1m_clicks have width 64"):
        joint = {"text": world["text"], "collaborative_dim": 8}
        train(start(world, "narrow", **{"model.init_args.joint": joint, "model.init_args.prompt": SOFT}))
    with pytest.raises(InputError, match="is read but not under needs"):
        train(start(world, "unlisted", **{"model.init_args.soft": ["sasrec"], "model.init_args.prompt": SOFT}))
    with pytest.raises(InputError, match="was trained with another model"):
        path = tiny_config(RALLREC, world["folder"], world["text"])
        upstream = world["folder"] / "lightgcn_ml1m_clicks.yaml"
        upstream.write_text(upstream.read_text().replace("num_layers: 2", "num_layers: 1"))
        train(["--config", str(path), *world["args"]])


def test_a_language_model_as_it_is_can_be_evaluated(world: dict[str, Any], trained: Path) -> None:
    path = tiny_config("llama_untuned_ml1m.yaml", world["folder"], world["text"], **{"trainer.max_epochs": 0})
    run = train(["--config", str(path), *world["args"]])
    record = json.loads((run / "metrics.json").read_text())
    with pytest.raises(InputError, match="nothing else is trained"):
        train(["--config", str(path), *world["args"], "--trainer.max_epochs=1", "--run_dir", str(run) + "-1"])
    assert record["train"]["epochs"] == 0 and 0 <= record["test"]["auc"] <= 1 and not (run / "adapter").exists()
    assert evaluate(["--run", str(run)])["test/auc"] == record["test"]["auc"]


def test_soft_tokens_reach_the_score(world: dict[str, Any], trained: Path) -> None:
    changes = {"model.init_args.soft": ["lightgcn_ml1m_clicks"], "model.init_args.prompt": SOFT}
    model = fitted(train(start(world, "softly", **changes)))
    batch = next(iter(model.eval_loader(model.data, 2)))
    with torch.no_grad():
        first = model.logits(batch)
        model.soft_vectors[batch.target_item] += 3.0
        assert not torch.allclose(first, model.logits(batch))
    assert np.isfinite(first.numpy()).all()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_export_answers_as_the_run(trained: Path, tmp_path: Path, precision: str) -> None:
    run = open_run(trained, ["--trainer.precision", precision])
    plain = export_adapter(run, tmp_path / "adapter")
    names = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "serving.json", "README.md"}
    assert names <= {str(path.relative_to(tmp_path / "adapter")) for path in (tmp_path / "adapter").rglob("*")}
    merged = export_adapter(run, tmp_path / "merged", merge=True)
    assert (plain["merged"], merged["merged"]) == (False, True) and plain["test"] == merged["test"]
    assert merged["checked"]["largest_difference"] < 1e-5  # float32 on both sides
    assert merged["checked"]["largest_difference_to_the_run"] < 0.03  # whose weights are int8
    assert (tmp_path / "merged" / "model" / "tokenizer_config.json").is_file()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_click_model_answers_for_anybody(trained: Path, precision: str) -> None:
    clicks = ClickAnswers(open_run(trained, ["--trainer.precision", precision]))
    dataset = clicks.data.dataset
    user, (first, second) = str(dataset.users["raw_user_id"][3]), dataset.items["raw_item_id"][:2].to_list()
    title = str(dataset.items["title"][0])
    known, new = clicks.ask(user, [], first), clicks.ask(None, [second], first)
    assert 0 < known.click < 1 and 0 < new.click < 1 and known.prompt != new.prompt
    assert title in known.prompt and title in new.prompt and str(dataset.items["title"][1]) in new.prompt
    with pytest.raises(InputError, match="nothing of this history"):
        clicks.ask(None, [], first)
    with pytest.raises(InputError, match="nosuch"):
        clicks.ask(user, [], "nosuch")


@pytest.mark.parametrize("cells", [300, 1 << 22])  # blocks of one pair and more, or one of all
def test_pairs_are_scored_as_the_test_did(
    cells: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msmrec.serving.ask_click.CELLS", cells)
    monkeypatch.setattr("msmrec.serving.ask_click.PAIRS", 16)
    run = open_run(trained)
    dataset, clicks = run.data.dataset, ClickAnswers(run)
    predictions = pl.read_parquet(trained / "predictions.parquet")
    rows = np.random.default_rng(0).permutation(sample_rows(dataset, TEST))
    asked = pl.DataFrame({"user_id": dataset.user_id[rows], "item_id": dataset.item_id[rows]})
    wanted = asked.join(predictions, on=["user_id", "item_id"], how="left", maintain_order="left")["prob"]
    found = clicks.probabilities(dataset.user_id[rows], dataset.item_id[rows], rows)
    assert found == pytest.approx(wanted.to_numpy(), abs=1e-4)
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out.parquet"
    users, items = dataset.users["raw_user_id"], dataset.items["raw_item_id"]
    pl.DataFrame({"user": users[[3, 0]], "item": items[[5, 3]]}).write_csv(pairs)
    score_verb(["--run", str(trained), "--pairs", str(pairs), "--out", str(out)])
    apart = [clicks.ask(str(users[u]), [], items[i]).click for u, i in ((3, 5), (0, 3))]
    assert pl.read_parquet(out)["probability"].to_numpy() == pytest.approx(apart, abs=1e-4)
