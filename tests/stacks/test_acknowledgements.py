"""cdk-nag runs at every synth; a finding is accepted by a row of the table or it stops the synth."""

from __future__ import annotations

from pathlib import Path

from stacks.acknowledgements import TABLE, Accepted
from tests.conftest import Assembly, python, used

WITHOUT_A_ROW = """
from stacks import acknowledgements
acknowledgements.TABLE = tuple(row for row in acknowledgements.TABLE if row.finding != "AwsSolutions-L1")
import app
models = app.load_models
app.load_models = lambda *arguments: models(*arguments)[:1]
app.main()
"""


def test_every_row_has_a_reason() -> None:
    assert all(len(row.reason) > 20 for row in TABLE)


def test_a_row_covers_only_what_it_names() -> None:
    row = Accepted(r"Stack/Role/.*", r"AwsSolutions-IAM5\[Resource::\*\]", "this service knows no resources")
    assert row.covers("Stack/Role/Resource", "AwsSolutions-IAM5[Resource::*]")
    assert not row.covers("Stack/Other/Resource", "AwsSolutions-IAM5[Resource::*]")
    assert not row.covers("Stack/Role/Resource", "AwsSolutions-IAM5[Action::s3:*]")


def test_a_finding_without_a_row_fails_the_synth(tmp_path: Path) -> None:
    done = python("-c", WITHOUT_A_ROW, target=tmp_path)
    assert done.returncode != 0
    assert "AwsSolutions-L1" in done.stdout + done.stderr


def test_every_row_has_a_finding(assembly: Assembly, otherwise: dict[str, Assembly]) -> None:
    """Some are of other settings than the shipped ones."""
    found = used(assembly.path) | used(otherwise["bounded"].path.parent)
    assert [row for row in TABLE if row.construct + row.finding not in found] == []
