"""`python -m msmrec describe` with a language model behind a real server: plan, kill, failures, and a second run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from tests.llm.fixtures import SAID
from tests.llm.proxy import FaultProxy
from tests.tiny_configs import TINY_DATA, tiny_config, tiny_text

from msmrec.artifacts import InputError
from msmrec.llm.answers import Answers
from msmrec.verbs import describe, faithfulness


def arguments(folder: Path, cache: Path, root: Path, url: str, model: Path, **server: Any) -> list[str]:
    """Of the verb: the tiny world, its two modalities named as the chat model answers, the server at `url`."""
    text = tiny_text(root)
    text["modalities"] = [
        {"name": "narrative", "prose": ["narrative"], "instruction": "What happens."},
        {"name": "acting", "prose": ["visual"], "instruction": "Who plays."},
    ]
    asked = {"model": str(model), "base_url": url, "price": {"input": 1.0, "output": 2.0}, **server}
    text["generator"] = {
        "class_path": "LLMWriter",
        "init_args": {"model": {"class_path": "OpenAIServer", "init_args": asked}},
    }
    path = tiny_config("msmrec_ml100k.yaml", folder, text)
    return ["--config", str(path), *TINY_DATA, "--data.root", str(root), "--data.cache", str(cache)]


@pytest.mark.usefixtures("tiny")
def test_plan_then_texts_then_nothing_to_ask(
    proxy: FaultProxy, chat_model: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = arguments(tmp_path, tmp_path / "cache", tiny_root, proxy.url, chat_model)
    describe.main([*args, "--dry-run"])
    plan = capsys.readouterr().out
    assert " requests to send, 0 answered before" in plan and "$" in plan and not proxy.seen
    count = int(plan.split(" requests")[0].splitlines()[-1])
    describe.main(args)
    printed = capsys.readouterr().out
    assert "narrative    100.0%" in printed and "acting         0.0%" in printed  # SAID says nothing of it
    assert len(proxy.seen) == count
    describe.main(args)  # the folder is there
    describe.main([*args, "--dry-run"])
    assert f"0 requests to send, {count} answered before" in capsys.readouterr().out
    assert len(proxy.seen) == count


def test_a_killed_run_asks_only_for_the_rest(
    proxy: FaultProxy, chat_model: Path, tiny_root: Path, tmp_path: Path
) -> None:
    proxy.faults = lambda number, body: "pass" if number <= 12 else "delay:30"
    args = arguments(tmp_path, tmp_path / "cache", tiny_root, proxy.url, chat_model, in_flight=4)
    environment = os.environ | {"WANDB_MODE": "offline"}
    with subprocess.Popen([sys.executable, "-m", "msmrec", "describe", *args], env=environment) as process:
        while len(proxy.seen) < 16:  # twelve answered, four on their way
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
    with Answers(tmp_path / "cache" / "answers.sqlite") as answers:
        assert len(answers) == 12
    assert not list((tmp_path / "cache" / "texts").glob("[!.]*"))  # nothing half-written
    proxy.faults = lambda number, body: "pass"
    proxy.seen.clear()
    describe.main(args)
    (folder,) = (tmp_path / "cache" / "texts").glob("[!.]*")
    texts = pl.read_parquet(folder / "texts-*.parquet")
    assert set(texts.filter(pl.col("modality") == "narrative")["text"]) == {SAID["narrative"]}
    assert len(proxy.seen) == texts["item_id"].n_unique() - 12


def test_failures_leave_extractive_texts_and_retry_asks_for_them_again(
    proxy: FaultProxy, chat_model: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.faults = lambda number, body: "500:down" if 5 <= number <= 7 else "400:too long" if number == 9 else "pass"
    args = arguments(tmp_path, tmp_path / "cache", tiny_root, proxy.url, chat_model, in_flight=1, max_retries=0)
    describe.main(args)
    printed = capsys.readouterr().out
    assert (
        "3 items: extractive: server: InternalServerError" in printed
        and "1 items: extractive: server: refused" in printed
    )
    asked = len(proxy.seen)
    proxy.faults = lambda number, body: "pass"
    describe.main([*args, "--retry"])
    assert "extractive" not in capsys.readouterr().out and len(proxy.seen) == asked + 4


def test_the_judge_is_asked_by_the_verb(
    proxy: FaultProxy, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_BASE_URL", proxy.url)
    proxy.content = json.dumps({"narrative": 2, "visual": 1, "set": 0})
    proxy.faults = lambda number, body: "canned"
    path = tiny_config("msmrec_ml100k.yaml", tmp_path, tiny_text(tiny_root))
    overrides = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(tmp_path / "cache")]
    faithfulness.main([str(path), "--judge", "m", "--judge_items", "7", *overrides])
    printed = capsys.readouterr().out
    assert "m on" in printed and "| narrative | 7 | 2.000 | 0 |" in printed and "| set | 7 | 0.000 | 0 |" in printed
    with pytest.raises(InputError, match="nowhere"):
        faithfulness.main([f"{path}+nowhere", *overrides])


def test_overlays_of_texts_parse_with_a_run(real_data: Path, tmp_path: Path) -> None:
    from msmrec.arguments import CONFIGS
    from msmrec.cli import build

    rallrecs = CONFIGS / "text" / "free_description.yaml"
    overlays = sorted(path for path in (CONFIGS / "text").glob("*.yaml") if path != rallrecs)
    assert len(overlays) >= 8
    for overlay in overlays:
        args = ["--config", "msmrec_ml100k.yaml", "--config", f"text/{overlay.name}", "--trainer.logger=false"]
        cli = build([*args, "--data.root", str(real_data), "--data.cache", str(tmp_path)], save=False)
        wanted = yaml.safe_load(overlay.read_text())["model"]["init_args"]["text"]
        for part in ("generator", "encoder"):
            if part in wanted:
                assert type(getattr(cli.model.text, part)).__name__ == wanted[part]["class_path"]
        assert cli.config.run_dir == f"runs/msmrec_ml100k+{overlay.stem}/seed=0"
