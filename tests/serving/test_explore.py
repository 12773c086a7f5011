"""The explorer in a real browser: opens, picks a user, moves a slider, asks for somebody new, by mouse and keyboard."""

import json
import socket
from pathlib import Path

import pytest
from tests.browser import browser_page, screenshot
from tests.tiny_configs import TINY_DATA, tiny_text

from msmrec.cli import open_run, train
from msmrec.serving.explore import explorer, launch

pytest.importorskip("gradio", reason="no gradio: pip install 'msmrec[explore]'")


def test_the_explorer(tiny_root: Path, cache: Path, tmp_path: Path) -> None:
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache), "--data.tokens_per_batch=512"]
    text = f"--model.init_args.text={json.dumps(tiny_text(tiny_root))}"
    more = ["--trainer.max_epochs=2", "--model.init_args.lr=0.02", "--run_dir", str(tmp_path / "run")]
    run = open_run(train(["--config", "msmrec_ml100k.yaml", *args, text, *more]))
    run.data.dataset.items = run.data.dataset.items.with_columns(  # a cached property: HTML in every title
        title="<img src=x onerror=\"console.error('ran')\">${1+1} " + run.data.dataset.items["title"]
    )
    page = explorer(run)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch(page, "127.0.0.1", port, wait=False)
    try:
        with browser_page() as browser:
            browser.goto(f"http://127.0.0.1:{port}")
            browser.wait_for_selector("#shown li", timeout=30_000)
            first = browser.inner_text("#shown")
            assert "<img src=x" in first and "${1+1}" in first  # as text

            user = str(run.data.dataset.users["raw_user_id"][5])
            box = browser.get_by_label("User id")
            box.fill(user)
            box.press("Enter")  # by keyboard
            browser.wait_for_function(f"document.querySelector('#said').innerText.includes('User {user}:')")
            theirs = browser.inner_text("#shown")
            assert theirs != first

            slider = browser.locator(".mm-gate input[type=range]").first
            slider.focus()
            slider.press("End")  # weight 1
            browser.wait_for_function("before => document.querySelector('#shown').innerText !== before", arg=theirs)
            browser.get_by_role("button", name="Back to the user's own gate").click()
            browser.wait_for_function("before => document.querySelector('#shown').innerText === before", arg=theirs)

            box.fill("<b>nobody</b>")
            box.press("Enter")
            browser.wait_for_function("document.querySelector('#said').innerText.includes(\"'<b>nobody</b>'\")")
            screenshot(browser, "explorer", tmp_path)
    finally:
        page.close(verbose=False)
