"""`python -m msmrec export` of a LlamaCTR: its adapter as it is, or added to the base model's weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from msmrec.artifacts import InputError, whole_folder, write_json
from msmrec.columns import VAL
from msmrec.ctr.head import LlamaCTR
from msmrec.ctr.language_model import answer_token, resolve
from msmrec.data.samples import sample_rows
from msmrec.llm.weights import load_causal_lm
from msmrec.run_folder import OpenRun
from msmrec.serving.export import refuse_existing

PROBES, TOLERANCE = 32, 1e-3


def export_adapter(run: OpenRun, out: Path, merge: bool = False) -> dict[str, Any]:
    """Writes the folder, whole or not at all.

    As it is: `adapter/`, LoRA in peft's format. Merged: `model/`, the base model with the adapter added, unquantised,
    as safetensors with its tokenizer, checked against base and adapter side by side. Both with `serving.json`: how
    to prompt and to read the answer, and what the check found.

    Returns:
        What serving.json holds.

    Raises:
        InputError: the run has no adapter or uses soft tokens, peft is missing, or the merged model answers otherwise.
    """
    model = run.model
    assert isinstance(model, LlamaCTR)
    if not (run.folder / "adapter" / "adapter_model.safetensors").is_file():
        raise InputError(
            f"{run.folder}: no adapter/; its language model was not trained, so there is nothing to export"
        )
    if model.uses_soft:
        raise InputError(
            f"{run.folder}: its prompts hold soft tokens, which no plain language model reads; not exported"
        )
    base = resolve(model.base, run.data.upstream)
    about: dict[str, Any] = {
        "model": "LlamaCTR", "config": run.record["config"], "base": model.base, "merged": merge,
        "system": model.prompt.system, "yes": model.prompt.yes, "no": model.prompt.no,
        "trained_on": model.quantisation, "test": {name: run.record["test"].get(name) for name in model.headline},
    }  # fmt: skip
    refuse_existing(out)
    with whole_folder(out) as folder:
        if merge:
            about["checked"] = _merge(run, model, base, folder / "model")
        else:
            shutil.copytree(run.folder / "adapter", folder / "adapter")
        write_json(folder / "serving.json", about)
        (folder / "README.md").write_text(_card(about))
    return about


def _merge(run: OpenRun, model: LlamaCTR, base: str, folder: Path) -> dict[str, float]:
    """Writes the merged model; how far its P(yes) on some prompts is from others'."""
    from peft import PeftModel

    device = run.data.place()[0]
    tokenizer, whole = load_causal_lm(base, "none", torch.float32)
    rows = sample_rows(run.data.dataset, VAL)[:PROBES]
    assert model.histories is not None
    history = model.histories.for_evaluation(model, run.data, rows)
    made = model.tokens(rows, history)
    prompts = torch.split(torch.from_numpy(made.input_ids).long().to(device), made.length.tolist())
    answers = [answer_token(tokenizer, word) for word in (model.prompt.yes, model.prompt.no)]

    def clicks(language_model: Any) -> torch.Tensor:
        with torch.no_grad():
            logits = [language_model(input_ids=ids[None]).logits[0, -1, answers] for ids in prompts]
        return F.softmax(torch.stack(logits).float(), -1)[:, 0].cpu()

    adapted = PeftModel.from_pretrained(whole.to(device), str(run.folder / "adapter")).eval()
    beside = clicks(adapted)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del whole, adapted, merged  # or two whole models would be there at once
    written = load_causal_lm(str(folder), "none", torch.float32)[1].to(device).eval()
    loader = model._prompt_loader(run.data, rows, history, model.tokens_per_batch, shuffle=False)
    trained = model.probabilities(loader).cpu().sort().values
    again = clicks(written)
    worst = float((again - beside).abs().max())
    if worst > TOLERANCE:
        raise InputError(
            f"{run.folder}: the merged model's answers differ by {worst:.2g} from the adapter's; not exported"
        )
    return {
        "prompts": len(rows),
        "largest_difference": worst,
        "largest_difference_to_the_run": float((again.sort().values - trained).abs().max()),
    }


def _card(about: dict[str, Any]) -> str:
    adapter = f"`adapter/` goes on `{about['base']}` (peft)"
    use = "`model/` is a whole causal language model" if about["merged"] else adapter
    found = ""
    if about["merged"]:
        found = f"\nChecked: {json.dumps(about['checked'])}; the run's own weights were {about['trained_on']}.\n"
    return f"""# {about["config"]}: a click head on a language model

{use}. Prompt it with the system message "{about["system"]}" and the user's ratings as in training
(prompts/ of a run shows them), and compare the next token's logits of "{about["yes"]}" and "{about["no"]}": P(click)
is their softmax.

    {json.dumps(about["test"])}
{found}"""
