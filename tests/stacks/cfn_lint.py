"""What cfn-lint says of templates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def errors_and_warnings(templates: Iterable[Path]) -> list[str]:
    """One line for each; all templates in one run, since reading the rules takes longer than most templates do."""
    from cfnlint import core  # takes a second to import
    from cfnlint.config import ConfigMixIn
    from cfnlint.runner import Runner

    assert core
    matches = Runner(ConfigMixIn(["--template", *map(str, templates)])).run()
    return [f"{match.filename}: {match}" for match in matches if match.rule.id[0] in "EW"]
