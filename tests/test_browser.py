"""The browser that tests of pages use: it must notice what is wrong with a page."""

from pathlib import Path

import pytest
from tests.browser import browser_page, screenshot


def test_a_page_that_is_well(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<title>t</title><h1>fine</h1>")
    with browser_page() as page:
        page.goto((tmp_path / "page.html").as_uri())
        assert page.inner_text("h1") == "fine"
        assert screenshot(page, "fine", tmp_path).is_file()


@pytest.mark.parametrize("wrong", ["<script>throw Error('x')</script>", "<img src='https://example.org/a.png'>"])
def test_what_is_wrong_is_noticed(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<title>t</title><p>{wrong}")
    with pytest.raises(AssertionError), browser_page() as page:
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_timeout(100)
