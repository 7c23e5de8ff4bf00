"""docs/fidelity.md says what runs, and everything that the templates need is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rehearsal import fidelity
from tests.conftest import Assembly

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"


def test_the_page_is_what_the_rehearsal_says() -> None:
    assert PAGE.read_text() == fidelity.page(), "python -m rehearsal.fidelity > docs/fidelity.md writes it anew"


def test_every_type_in_the_templates_is_ours_or_the_embedded_clouds(assembly: Assembly) -> None:
    from ministack.services.cloudformation.provisioners import _RESOURCE_HANDLERS as EMBEDDED

    used = {found["Type"] for template in assembly.templates.values() for found in template["Resources"].values()}
    known = {*EMBEDDED, *fidelity.resource_types(), "AWS::CDK::Metadata"}
    assert used <= known
    assert set(fidelity.resource_types()) & used


@pytest.mark.parametrize("call", ["sagemaker:createTrainingJob", "sagemaker:createProcessingJob", "glue:startJobRun"])
def test_the_jobs_that_state_machines_start_are_operations_of_ours(assembly: Assembly, call: str) -> None:
    service, _, operation = call.partition(":")
    (ours,) = [found for found in fidelity.SERVICES if found.name == service]
    assert f"{operation[0].upper()}{operation[1:]}" in fidelity.operations(ours)
    assert f":states:::{call}.sync" in json.dumps(assembly.templates)
