"""What the README tells people to type exists."""

import re
from pathlib import Path

from msmrec.arguments import CONFIGS

ROOT = Path(__file__).parents[1]


def test_the_readmes_commands_exist() -> None:
    text = (ROOT / "README.md").read_text()
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


def test_ci_runs_the_tests() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
