"""The stand-in for Glue's Python package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).parents[2] / "rehearsal" / "awsglue_standin"


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STANDIN))


def _resolve(arguments: list[str], options: list[str]) -> dict[str, Any]:
    from awsglue.utils import getResolvedOptions

    return dict(getResolvedOptions(["script.py", *arguments], options))


def test_declared_arguments_are_resolved_and_others_ignored() -> None:
    found = _resolve(["--raw", "s3://b/raw/", "--other", "1", "--as_of=2013-03-01"], ["raw", "as_of"])
    assert (found["raw"], found["as_of"]) == ("s3://b/raw/", "2013-03-01")
    assert "other" not in found
    assert found["job_bookmark_option"] == "job-bookmark-disable"
    assert found["TempDir"] is None


def test_a_missing_argument_raises_and_names_it() -> None:
    from awsglue.utils import GlueArgumentError

    with pytest.raises(GlueArgumentError, match="--output"):
        _resolve(["--raw", "x"], ["raw", "output"])


def test_dashes_become_underscores_and_names_may_be_abbreviated() -> None:
    assert _resolve(["--my-option", "1"], ["my-option"])["my_option"] == "1"
    assert _resolve(["--outp", "1"], ["output"])["output"] == "1"


def test_glues_own_names_are_reserved() -> None:
    with pytest.raises(RuntimeError, match="JOB_RUN_ID"):
        _resolve([], ["JOB_RUN_ID"])
    assert _resolve(["--JOB_NAME", "j"], ["JOB_NAME"])["JOB_NAME"] == "j"


def test_the_old_continuation_option_is_translated() -> None:
    assert _resolve(["--continuation-option", "continuation-enabled"], [])["job_bookmark_option"] == (
        "job-bookmark-enable"
    )
    with pytest.raises(RuntimeError, match="Invalid option"):
        _resolve(["--job-bookmark-from", "a", "--job-bookmark-to", "b"], [])


def test_a_job_is_initialised_before_its_commit_and_keeps_no_bookmarks() -> None:
    from awsglue.job import Job

    job = Job(None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="init"):
        job.commit()
    with pytest.raises(NotImplementedError, match="bookmarks"):
        job.init("j", {"job_bookmark_option": "job-bookmark-enable"})
    job.init("j", {})
    job.commit()


def test_the_templates_imports_work_and_dynamic_frames_are_refused() -> None:
    """In an interpreter of its own: `import *` brings many names."""
    script = (
        "from awsglue.transforms import *\nfrom awsglue.dynamicframe import DynamicFrame\n"
        "for use in (lambda: ApplyMapping.apply(frame=1), lambda: DynamicFrame.fromDF(1, 2, 'x'), "
        "lambda: DynamicFrame(1)):\n"
        "    try:\n        use()\n    except NotImplementedError as error:\n        print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(STANDIN)}, text=True, capture_output=True, check=True
    ).stdout
    assert [line.split()[0] for line in said.splitlines()] == [
        "ApplyMapping.apply",
        "DynamicFrame.fromDF",
        "DynamicFrame",
    ]
