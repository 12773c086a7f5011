"""What the README tells people to type exists."""

import re
from pathlib import Path

from msmrec.arguments import CONFIGS

ROOT = Path(__file__).parents[1]


def test_the_readmes_commands_exist() -> None:
    pages = {ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "your_own.md"}  # of that: test_docs
    text = "\n".join(path.read_text() for path in pages)
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+)", text, re.M))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    configs = set(re.findall(r"--config (\S+\.yaml)", text))
    assert configs
    for config in configs:
        assert (CONFIGS / config).is_file(), config
    for script in set(re.findall(r"python (\w+\.py)", text)):
        assert (ROOT / script).is_file(), script


def test_links_between_the_documents_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https://)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links and all((ROOT / link).is_file() for link in links)


def test_ci_runs_the_tests() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
