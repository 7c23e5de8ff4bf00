"""docs/security.md says what the templates say, and its table of seldom used grants is about grants that there are."""

from __future__ import annotations

import re

from stacks.role_reader import read_roles
from stacks.security import page
from stacks.seldom_used import SELDOM_USED, kind
from tests.conftest import ROOT, Assembly
from tests.stacks import policies


def test_the_page_is_what_the_templates_say(assembly: Assembly) -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert page(text, assembly.path) == text, "write it anew: ./pushline synth, python -m stacks.security cdk.out"


def test_the_page_tells_every_role(assembly: Assembly) -> None:
    text, told = (ROOT / "docs" / "security.md").read_text(), read_roles(assembly.path)
    made = {f"{stack}/{re.sub(r'[0-9A-F]{8}$', '', name)}" for stack in assembly.templates
            for name in assembly.resources("AWS::IAM::Role", stack)}  # fmt: skip
    prefixes = {stack.partition("-")[0] for stack in assembly.templates} - {"Pushline"}
    for role in made:
        prefix = role.partition("-")[0]
        assert {role, role.replace(prefix, "<model>") if prefix in prefixes else role} & set(told), role
    assert all(f"### `{role}`\n" in text for role in told)


def test_a_role_without_conditions_has_no_empty_ones() -> None:
    assert "when ." not in (ROOT / "docs" / "security.md").read_text()


def test_every_resource_is_granted_with_a_reason(assembly: Assembly) -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    rows = text.partition("## Statements on every resource")[2].partition("\n## ")[0].splitlines()
    told = [row for row in rows if row.startswith("| `")]
    assert told
    assert all(not row.endswith("|  |") for row in told)


def test_no_row_explains_a_grant_that_is_gone_or_that_another_explains(assembly: Assembly) -> None:
    granted = {(kind(stack, statement.holder), action) for stack in assembly.templates
               for statement in policies.statements(assembly, stack) for action in statement.actions}  # fmt: skip
    explained = [pair for row in SELDOM_USED for pair in row.pairs()]
    assert set(explained) - granted == set()
    assert len(explained) == len(set(explained))
