"""The reconciler's patience with an endpoint that is changing by itself: it scales, or SageMaker maintains it.

Until it is at rest SageMaker refuses UpdateEndpoint, and CloudFormation rolls the stack back as if the version had
failed. So what changes the endpoint waits for it, and an update that came too early all the same is begun again
(`release_rollback.py`). Next: the update itself, in `release_rollout.py`.
"""

from __future__ import annotations

from stacks.deployment import Deployment
from stacks.release_steps import CARRIES, LOOK, TELL_FAILED, TELL_STOPPED, UPDATE, call, choice, otherwise, wait, when
from stacks.serving_rollout import START_SECONDS
from stacks.states import State, expression, jsonata_list

SECONDS = 60
"""Between two looks, each of which begins anew with registry and stack: a history holds 25,000 events."""
ROUNDS = START_SECONDS // SECONDS
"""Instances that are added have as long to come up as those of a new fleet."""
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
BUSY = "/in-progress endpoint/"
"""What SageMaker answers, as the stack's events pass it on: `Cannot update in-progress endpoint "arn:..."`."""
SEE_REST = "See whether the endpoint is at rest"
WAIT_FOR_ENDPOINT = "Wait until the endpoint is at rest"


def longest_waits(deployment: Deployment) -> int:
    """In seconds: before a rollout, and before it is put back."""
    return 2 * ROUNDS * SECONDS if deployment.has_endpoint else 0


def before_update(deployment: Deployment) -> str:
    """The state in which an update begins that changes the endpoint."""
    return SEE_REST if deployment.has_endpoint else UPDATE


def busy_endpoint(deployment: Deployment) -> dict[str, State]:
    """From an update that is prepared to an endpoint that takes it; after a wait it is prepared anew."""
    if not deployment.has_endpoint:
        return {}
    status = {"endpoint_status": expression("$states.result.EndpointStatus")}
    return {
        # There may be none yet, or no more, which the update settles.
        SEE_REST: call("sagemaker:describeEndpoint", {"EndpointName": deployment.endpoint}, "Is the endpoint at rest?",
                       assign=status, catch=UPDATE),
        "Is the endpoint at rest?": choice(*while_changing("$endpoint_status"), otherwise(UPDATE)),
        WAIT_FOR_ENDPOINT: wait("What waited for the endpoint?", SECONDS),
        "What waited for the endpoint?": choice(when("$purpose = 'put back'", CARRIES), otherwise(LOOK)),
    }  # fmt: skip


def while_changing(status: str) -> list[State]:
    """What to do about an endpoint that is not at rest; a version is never to blame for that."""
    changing = f"{status} in {jsonata_list(CHANGING)}"
    still = f"'The endpoint is still ' & {status} & ' after {ROUNDS * SECONDS // 60} minutes.'"
    return [
        when(f"{changing} and $waited < {ROUNDS}", WAIT_FOR_ENDPOINT, waited=expression("$waited + 1")),
        when(f"{changing} and $purpose = 'put back'", TELL_FAILED,
             reason=expression(f"$reason & ' It was not put back: ' & {still}")),
        when(changing, TELL_STOPPED, problem=expression(still)),
    ]  # fmt: skip
