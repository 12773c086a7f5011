"""python -m msmrec: the page lists the verbs that there are, and a wrong one gets the page."""

import importlib
import pkgutil
import re
import sys

import pytest

from msmrec import __main__, verbs

NAMES = sorted(module.name for module in pkgutil.iter_modules(verbs.__path__))


def test_the_page_lists_the_verbs_that_there_are() -> None:
    assert __main__.__doc__
    assert sorted(re.findall(r"^    (\w+) ", __main__.__doc__, re.M)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_verb_has_a_main_and_says_what_it_does(name: str) -> None:
    module = importlib.import_module(f"msmrec.verbs.{name}")
    assert callable(module.main) and module.__doc__


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), ([], 0), (["recomend"], 2)])
def test_without_a_verb_there_is_the_page(
    words: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["msmrec", *words])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == status and capsys.readouterr().out.strip() == (__main__.__doc__ or "").strip()
