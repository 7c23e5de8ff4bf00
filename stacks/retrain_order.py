"""The order of retrainings: what an older one trained is no candidate once a newer one has registered a version.

The stage of the pipeline holds one retraining at a time, but an execution that it has abandoned goes on, and one that
was stopped can be redriven. Whichever began later has the newer code: a redrive keeps the time at which it began.
"""

from __future__ import annotations

from typing import Any

from stacks.retrain_decision import METADATA_TEXT
from stacks.states import expression

BEGAN = "$states.context.Execution.StartTime"
LOOKED_AT = 10
"""How many versions are looked at, the newest first: more retrainings than that are never abandoned at once."""

NEWEST = {"ModelPackageGroupName": "${Group}", "SortBy": "CreationTime", "SortOrder": "Descending",
          "MaxResults": LOOKED_AT}  # fmt: skip
"""Asks for the versions that may be of a newer retraining."""
MADE_SINCE = f"""[$states.result.ModelPackageSummaryList[$toMillis(CreationTime) > $toMillis({BEGAN})]
    .ModelPackageArn]"""
"""Those that were registered since this retraining began: others can't be of one that began later."""
ORIGIN = """(
  $facts := $states.result.CustomerMetadataProperties;
  {'version': $states.result.ModelPackageVersion, 'commit': $facts.commit, 'began': $facts.began}
)"""
"""What a described version says of its retraining; one that people registered, or that is from before, may say less."""
# Times in UTC sort as text, and a text that is no time is no error.
NEWER = f"$append($states.result[began > {BEGAN}], [{{}}])[0]"
"""The newest version whose retraining began later than this one, from the origins; {} if there is none."""
OVERTAKEN = """(
  $told := 'failed: overtaken by the retraining of commit ' & $substring($newer.commit, 0, 8)
    & ', which began later and has registered version ' & $newer.version;
  $merge([$verdict, {'passed': false, 'reasons': $append([$told], $verdict.reasons)}])
)"""
"""The verdict on what an older retraining trained, whatever its numbers are."""


def withdrawal() -> dict[str, Any]:
    """Rejects the version that this retraining has registered, with the reason where a registration has it."""
    told = f"({METADATA_TEXT}; $text($join($verdict.reasons, '; ')))"
    return {"ModelPackageArn": expression("$package"), "ModelApprovalStatus": "Rejected",
            "ApprovalDescription": expression("$verdict.reasons[0]"),
            "CustomerMetadataProperties": {"decision": expression(told)}}  # fmt: skip
