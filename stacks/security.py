"""Writes the tables of docs/security.md from templates: `python -m stacks.security cdk.out`; a test compares them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stacks.acknowledgements import TABLE
from stacks.every_resource import because
from stacks.role_reader import Role, read_roles
from stacks.seldom_used import SELDOM_USED
from stacks.trust import IN_ARNS, SOURCES, UNBOUND

PAGE = Path("docs") / "security.md"
_PART = re.compile(r"(<!-- generated: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str, assembly: Path) -> str:
    """The page with its generated parts made anew; what people write stays."""
    parts = _parts(read_roles(assembly))
    return _PART.sub(lambda found: found[1] + "\n".join(parts[found[2]]) + "\n" + found[3], text)


def _parts(roles: dict[str, Role]) -> dict[str, list[str]]:
    return {
        "roles": [line for name, role in roles.items() for line in _role(name, role)],
        "every resource": [*_rows(("role", "actions", "why on every resource"), _wildcards(roles))],
        "accepted findings": [*_rows(("on", "finding", "why it is accepted"), _accepted())],
        "seldom used": [*_rows(("roles", "actions", "why they are granted all the same"), _seldom())],
        "trust": [*_rows(("service", "`aws:SourceArn`"), _trust())],
    }


def _role(name: str, role: Role) -> Iterator[str]:
    yield f"### `{name}`"
    yield f"Assumed by {role.by}."
    yield ""
    rows = ((_code(s.actions), _code(s.resources), _code(s.conditions)) for s in role.statements)
    yield from _rows(("may", "on", "when"), rows) if role.statements else ("It has no permissions of its own.",)
    yield ""


def _rows(header: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _code(items: tuple[str, ...]) -> str:
    return " ".join(f"`{item}`" for item in items)


def _wildcards(roles: dict[str, Role]) -> Iterator[tuple[str, ...]]:
    for name, role in roles.items():
        for statement in role.statements:
            if "*" in statement.resources:
                yield f"`{name}`", _code(statement.actions), "; ".join(because(statement.actions))


def _accepted() -> Iterator[tuple[str, ...]]:
    for row in TABLE:
        yield f"`{row.construct}`", f"`{_readable(row.finding)}`", row.reason


def _readable(finding: str) -> str:
    return re.sub(r"\\([\[\]*])", r"\1", finding)


def _seldom() -> Iterator[tuple[str, ...]]:
    for row in SELDOM_USED:
        yield _code(row.roles), _code(row.actions), row.reason


def _trust() -> Iterator[tuple[str, ...]]:
    for service, pattern in sorted({**SOURCES, **UNBOUND}.items()):
        yield f"`{service}`", pattern if service in UNBOUND else f"`{IN_ARNS.get(service, service)}:…:{pattern}`"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), Path(sys.argv[1] if len(sys.argv) > 1 else "cdk.out")))
