"""What is compared of production's and the shadow's captured answers, and when model.yaml may ask for it."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contract.model import Serving
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "contract" / "entry"))  # as in the unpacked bundle
import pushline_shadow as shadow  # type: ignore[import-not-found]

JSON = "application/json"


def record(asked: str, told: str, at: str = "2013-03-01T12:00:00Z", *, hidden: bool = False) -> str:
    def part(text: str) -> dict[str, Any]:
        data = base64.b64encode(text.encode()).decode() if hidden else text
        return {"observedContentType": JSON, "data": data, "encoding": "BASE64" if hidden else "JSON"}

    captured = {"endpointInput": part(asked), "endpointOutput": part(told)}
    return json.dumps({"captureData": captured, "eventMetadata": {"eventId": "1", "inferenceTime": at}})


def report(folder: Path, production: list[str], of_shadow: list[str], *arguments: str) -> dict[str, Any]:
    for name, lines in (("production", production), ("shadow", of_shadow)):
        (folder / name).mkdir()
        (folder / name / "captured.jsonl").write_text("\n".join(lines))
    given = [f"--{name}={folder / name}" for name in ("production", "shadow", "output")]
    shadow.main([*given, *arguments])
    return dict(json.loads((folder / "output" / "report.json").read_text()))


def test_answers_are_paired_by_equal_requests_in_whatever_order_and_encoding(tmp_path: Path) -> None:
    found = report(tmp_path, [record("[1]", "[0.5]"), record("[2]", "[0.7]"), record("[2]", "[0.7]")],
                   [record("[2]", "[0.7]"), record("[3]", "[9]"), record("[1]", "[0.25]", hidden=True)])  # fmt: skip
    assert found["requests"] == {
        "production": 3, "shadow": 3, "compared": 2, "differing": 1, "other_shape": 0}  # fmt: skip
    assert found["answers"]["largest_difference"] == 0.25


def test_what_an_earlier_shadow_answered_is_left_out(tmp_path: Path) -> None:
    old, new = "2013-03-01T11:00:00Z", "2013-03-01T13:00:00Z"
    production = [record("[1]", "[1]", old), record("[1]", "[1]", new)]
    of_shadow = [record("[1]", "[5]", old), record("[1]", "[1]", new)]
    found = report(tmp_path, production, of_shadow, "--since=2013-03-01T12:00:00.000Z")
    assert (found["requests"]["compared"], found["requests"]["differing"]) == (1, 0)


def test_rounding_is_no_difference_and_another_shape_is_one(tmp_path: Path) -> None:
    found = report(tmp_path, [record("[1]", "[1000]"), record("[2]", "[1, 2]"), record("[3]", '"yes"')],
                   [record("[1]", "[1000.5]"), record("[2]", "[1]"), record("[3]", '"no"')])  # fmt: skip
    assert (found["requests"]["differing"], found["requests"]["other_shape"]) == (2, 2)


def test_answers_without_predictions_are_compared_as_text(tmp_path: Path) -> None:
    found = report(tmp_path, [record("[1]", '{"late": 0.2}')], [record("[1]", '{"late": 0.3}')])
    assert found["requests"]["differing"] == 1


def test_what_can_not_be_read_is_counted_and_said(tmp_path: Path) -> None:
    found = report(tmp_path, [record("[1]", "[1]"), "no json"], [record("[1]", "[1]")])
    assert found["requests"]["compared"] == 1
    assert "1 of production's captured requests can't be read" in found["summary"]


def test_nothing_in_common_is_a_report_too(tmp_path: Path) -> None:
    found = report(tmp_path, [record("[1]", "[1]")], [record("[2]", "[1]")])
    assert found["metrics"] == {"ShadowRequestsCompared": 0, "ShadowAnswersDifferentPercent": 0}
    assert not (tmp_path / "output" / "answers.png").exists()


def test_a_shadow_needs_captured_answers() -> None:
    with pytest.raises(ValidationError, match="found shadow with capture_percent 0; allowed: 1 to 100"):
        Serving.model_validate({"shadow": True, "capture_percent": 0})
    assert Serving.model_validate({"shadow": True}).shadow


@pytest.mark.parametrize("kind", ["serverless", "async"])
def test_only_endpoints_on_instances_that_answer_at_once_take_a_shadow(kind: str) -> None:
    with pytest.raises(ValidationError, match=f"found shadow with endpoint: {kind}"):
        Serving.model_validate({"endpoint": kind, "shadow": True})
