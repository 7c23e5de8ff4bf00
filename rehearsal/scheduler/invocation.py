"""One invocation of a schedule's target: under the target's role, tried again as its retry policy says."""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.service import Cloud, Params, ServiceError, Unsupported

log = logging.getLogger("rehearsal")
PRINCIPAL = "scheduler.amazonaws.com"
MOST_ATTEMPTS, LONGEST_SECONDS = 185, 86_400
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 900.0
_TRANSIENT = ("Throttl", "TooManyRequests", "LimitExceeded", "ServiceUnavailable", "Internal", "ServiceException")
_PARAMETERS = {
    "EcsParameters": "",
    "KinesisParameters": "",
    "SageMakerPipelineParameters": "",
    "SqsParameters": "",
    "EventBridgeParameters": "events",
}
TARGETS = ("lambda", "states", "events")


def check_target(target: Params) -> None:
    """Refuse at creation what could not be called."""
    service = _service(target)
    if service not in TARGETS:
        raise Unsupported(
            f"a schedule's target {target['Arn']} is not rehearsed; functions, state machines and event buses are"
        )
    for name, only in _PARAMETERS.items():
        if target.get(name) is not None and only != service:
            raise ServiceError("ValidationException", f"{name} does not go with the target {target['Arn']}")
    if service == "events" and not target.get("EventBridgeParameters"):
        raise ServiceError("ValidationException", "EventBridgeParameters is required for a target that is an event bus")
    if "Input" in target and not _is_json(target["Input"]):
        raise ServiceError("ValidationException", f"Input is not well-formed JSON: {target['Input'][:80]}")


class Failed(Exception):
    """The target was not called; `again` tells whether another attempt may help."""

    def __init__(self, code: str, message: str, *, again: bool) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.again = code, message, again


def invoke(cloud: Cloud, invocation: Params) -> None:
    """Call the target once; Failed if it was not."""
    target = invocation["target"]
    try:
        _CALLS[_service(target)](cloud, invocation, _input(invocation))
    except ClientError as error:
        told, status = error.response["Error"], error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        again = status >= 500 or any(word in told.get("Code", "") for word in _TRANSIENT)
        raise Failed(told.get("Code", "Unknown"), told.get("Message", ""), again=again) from None
    except ServiceError as error:
        raise Failed(error.code, error.message, again=error.status >= 500) from None
    except BotoCoreError as error:
        raise Failed(type(error).__name__, str(error), again=True) from None


def retry_at(invocation: Params, now: float, time_scale: float) -> float | None:
    """When to try again after `attempts` failed ones (real time), or None when the retry policy is exhausted."""
    policy, attempts = _policy(invocation), invocation["attempts"]
    age = (now - invocation["began"]) * time_scale
    if attempts > policy["MaximumRetryAttempts"] or age >= policy["MaximumEventAgeInSeconds"]:
        return None
    wait = min(BACKOFF_SECONDS * float(2 ** min(attempts - 1, 30)), LONGEST_BACKOFF_SECONDS)
    return now + wait / time_scale


def give_up(cloud: Cloud, invocation: Params, failure: Failed) -> None:
    """Say so in the log, and put the event into the target's dead-letter queue if it has one."""
    target = invocation["target"]
    log.error("schedule %s could not invoke %s: %s", invocation["schedule"], target["Arn"], failure)
    queue = (target.get("DeadLetterConfig") or {}).get("Arn")
    if not queue:
        return
    told = {
        "ERROR_CODE": failure.code,
        "ERROR_MESSAGE": failure.message or failure.code,
        "EXECUTION_ID": invocation["execution"],
        "IS_PAYLOAD_TRUNCATED": "false",
        "RETRY_ATTEMPTS": str(max(0, invocation["attempts"] - 1)),
        "SCHEDULED_TIME": iso(invocation["scheduled"]),
        "SCHEDULE_ARN": invocation["schedule"],
        "TARGET_ARN": target["Arn"],
    }
    if failure.again:
        told["EXHAUSTED_RETRY_CONDITION"] = _exhausted(invocation)
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in told.items()}
    try:
        _, _, _, region, account, name = queue.split(":")
        url = cloud.client("sqs", account=account, region=region).get_queue_url(QueueName=name)["QueueUrl"]
        _client(cloud, "sqs", invocation).send_message(
            QueueUrl=url, MessageBody=_input(invocation), MessageAttributes=attributes
        )
    except (ClientError, BotoCoreError, ServiceError) as error:
        log.error("schedule %s could not write to its dead-letter queue: %s", invocation["schedule"], error)


def _policy(invocation: Params) -> Params:
    given = invocation["target"].get("RetryPolicy") or {}
    return {"MaximumRetryAttempts": MOST_ATTEMPTS, "MaximumEventAgeInSeconds": LONGEST_SECONDS, **given}


def _exhausted(invocation: Params) -> str:
    most = invocation["attempts"] > _policy(invocation)["MaximumRetryAttempts"]
    return "MaximumRetryAttempts" if most else "MaximumEventAgeInSeconds"


def iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- targets ------------------------------------------------------------------------------------------


def _to_function(cloud: Cloud, invocation: Params, payload: str) -> None:
    _client(cloud, "lambda", invocation).invoke(
        FunctionName=invocation["target"]["Arn"], InvocationType="Event", Payload=payload.encode()
    )


def _to_state_machine(cloud: Cloud, invocation: Params, payload: str) -> None:
    _client(cloud, "stepfunctions", invocation).start_execution(
        stateMachineArn=invocation["target"]["Arn"], name=invocation["execution"], input=payload
    )


def _to_bus(cloud: Cloud, invocation: Params, payload: str) -> None:
    given = invocation["target"]["EventBridgeParameters"]
    entry = {
        "EventBusName": invocation["target"]["Arn"],
        "Source": given["Source"],
        "DetailType": given["DetailType"],
        "Detail": payload,
    }
    answer = _client(cloud, "events", invocation).put_events(Entries=[entry])
    if answer.get("FailedEntryCount"):
        refused = answer["Entries"][0]
        raise Failed(refused.get("ErrorCode", "Unknown"), refused.get("ErrorMessage", ""), again=True)


_CALLS = {"lambda": _to_function, "states": _to_state_machine, "events": _to_bus}


def _client(cloud: Cloud, service: str, invocation: Params) -> Any:
    place, group, name = invocation["schedule"].split("/")
    # AWS names the group, not the schedule, as the source that a role may insist on.
    source = f"{place.removesuffix(':schedule')}:schedule-group/{group}"
    # One session per schedule, not per invocation: a session has its own clients, which are kept.
    return cloud.client(service, role=invocation["target"]["RoleArn"], by=PRINCIPAL, region=place.split(":")[3],
                        session=name[:64], source=source)  # fmt: skip


def _input(invocation: Params) -> str:
    """The target's input with its context attributes filled in; without one, AWS's default notification."""
    attributes = {
        "schedule-arn": invocation["schedule"],
        "scheduled-time": iso(invocation["scheduled"]),
        "execution-id": invocation["execution"],
        "attempt-number": str(max(1, invocation["attempts"])),
    }
    text = invocation["target"].get("Input")
    if text is None:
        return json.dumps(_notification(invocation))
    for name, value in attributes.items():
        text = text.replace(f"<aws.scheduler.{name}>", value)
    return str(text)


def _notification(invocation: Params) -> Params:
    _, _, _, region, account, _ = invocation["schedule"].split(":", 5)
    return {
        "version": "0",
        "id": invocation["execution"],
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": account,
        "time": iso(invocation["scheduled"]),
        "region": region,
        "resources": [invocation["schedule"]],
        "detail": "{}",
    }


def _service(target: Params) -> str:
    """The third part of the target's ARN; a universal target (`arn:aws:scheduler:::aws-sdk:…`) is `scheduler`."""
    parts = target["Arn"].split(":")
    return parts[2] if len(parts) > 5 else ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def started(execution: str, schedule: str, scheduled: float, target: Params) -> Params:
    """A new invocation's document."""
    return {
        "execution": execution,
        "schedule": schedule,
        "scheduled": scheduled,
        "target": target,
        "began": time.time(),
        "attempts": 0,
        "at": 0.0,
    }
