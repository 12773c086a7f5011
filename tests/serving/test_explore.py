"""The explorer in a real browser: opens, picks a user, moves a slider, asks for somebody new, by mouse and keyboard."""

import socket
from pathlib import Path

import pytest
from tests.browser import browser_page, screenshot

from msmrec.run_folder import OpenRun
from msmrec.serving.explore import explorer, launch

pytest.importorskip("gradio", reason="no gradio: pip install 'msmrec[explore]'")


def test_the_explorer(runs: dict[str, OpenRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs["msmrec"]
    titles = "<img src=x onerror=\"console.error('ran')\">${1+1} " + run.data.dataset.items["title"]
    monkeypatch.setitem(run.data.dataset.__dict__, "items", run.data.dataset.items.with_columns(title=titles))
    page = explorer(run)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch(page, "127.0.0.1", port, wait=False)
    try:
        with browser_page(allow=("/queue/data",)) as browser:  # its client aborts a stream that has ended
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

            browser.get_by_role("tab", name="Somebody new").click()
            browser.locator("#liked input").press_sequentially(str(run.data.dataset.items["title"][3])[-12:])
            browser.locator("#liked input").press("Enter")
            browser.wait_for_function("document.querySelector('#said').innerText === 'Somebody new: a history of 1.'")
    finally:
        page.close(verbose=False)
