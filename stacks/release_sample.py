"""The reconciler's sample request: read, sent, and its answer held against the one recorded at evaluation."""

from __future__ import annotations

from typing import Any

from stacks.deployment import Deployment
from stacks.release_steps import (
    REJECT,
    SAMPLE,
    TELL_STOPPED,
    WAIT,
    address,
    call,
    choice,
    is_address,
    otherwise,
    remember,
    wait,
    when,
)
from stacks.states import State, expression

REQUEST, RECORDED = "$wanted.facts.sample_request", "$wanted.facts.sample_answer"
SEND = "Send the sample request"
ANSWERED = "Is there an answer?"
FAULT = "Is it the version's fault?"
FAILED, BY_WHOM = "The smoke test failed", "Does the endpoint still run it?"
VERSIONS_FAULT = r"/^(States\.DataLimitExceeded|S3\.NoSuchKey|SageMakerRuntime\.(ModelError|ValidationError))/"
"""What only another version can heal: anything else may be over in an hour, and a rejection is for good."""
ENDPOINT_GONE = r"/^SageMakerRuntime\.ValidationError.*[Ee]ndpoint .*not found/"
RELATIVE, ABSOLUTE = "0.001", "0.000001"
"""By how much a number of the answer may differ from the recorded one: another instance type rounds differently."""
ANSWER_SECONDS, ANSWER_ATTEMPTS = 10, 60
"""An asynchronous endpoint gets ten minutes."""
SAMPLE_ID = "pushline-sample"
"""Captured beside a request, so that monitoring knows those that nobody asked."""
_NUMBER = "/-?(?:0|[1-9][0-9]*)(?:[.][0-9]+)?(?:[eE][+-]?[0-9]+)?/"
_COMPARED = f"""
    $plain := function($text) {{ $replace($text, /\\s+/, '') }};
    $shape := function($text) {{ $replace($plain($text), {_NUMBER}, '#') }};
    $numbers := function($text) {{ [$match($plain($text), {_NUMBER}).match] }};"""
OTHER_SHAPE = f"({_COMPARED} $shape($answer) != $shape($recorded))"
OTHER_NUMBERS = f"""({_COMPARED}
    $wanted_numbers := $numbers($recorded);
    $count($filter($numbers($answer), function($value, $index) {{
        $abs($number($value) - $number($wanted_numbers[$index]))
            > {ABSOLUTE} + {RELATIVE} * $abs($number($wanted_numbers[$index])) }})) > 0 )"""


def ask(deployment: Deployment) -> tuple[str, dict[str, Any]]:
    """The call that sends the sample request, and its arguments."""
    content_type = expression(f"$contains({REQUEST}, /[.]csv$/) ? 'text/csv' : 'application/json'")
    asked = {"EndpointName": deployment.endpoint, "ContentType": content_type, "Accept": "application/json"}
    if deployment.kind == "async":
        return "sagemakerruntime:invokeEndpointAsync", asked | {"InputLocation": expression(REQUEST)}
    return "sagemakerruntime:invokeEndpoint", asked | {"Body": expression("$sample"), "InferenceId": SAMPLE_ID}


def sample(deployment: Deployment, then: str) -> dict[str, State]:
    """Read the request, before a rollout and before a smoke test; the smoke test goes on to `then`."""
    told = "'The smoke test failed: the answer"
    shown = "$substring($answer, 0, 200) & ' and not the recorded ' & $substring($recorded, 0, 200)"
    return {
        SAMPLE: choice(
            when(is_address(REQUEST), "Read the sample request"),
            otherwise(REJECT, reason="It has no sample request (metadata sample_request) to be tried with.")),
        "Read the sample request": call(
            "s3:getObject", address(REQUEST), "What is the sample for?",
            assign={"sample": expression("$states.result.Body")}, catch=FAULT),
        **(_send_and_wait(deployment) if deployment.kind == "async" else _send(deployment)),
        ANSWERED: choice(
            when("$trim($answer) = ''", FAILED, reason="The smoke test failed: the answer is empty."),
            when(f"$not({is_address(RECORDED)})", then),
            otherwise("Read the recorded answer")),
        "Read the recorded answer": call(
            "s3:getObject", address(RECORDED), "Is it the recorded answer?", catch=TELL_STOPPED,
            assign={"recorded": expression("$string($states.result.Body)")}),
        "Is it the recorded answer?": choice(
            when(OTHER_SHAPE, FAILED, reason=expression(f"{told} has another shape, ' & {shown}")),
            when(OTHER_NUMBERS, FAILED, reason=expression(f"{told} differs, ' & {shown}")),
            otherwise(then)),
        FAULT: choice(
            when(f"$contains($problem, {VERSIONS_FAULT}) and $not($contains($problem, {ENDPOINT_GONE}))", FAILED,
                 reason=expression("'The smoke test failed: ' & $problem")),
            otherwise(TELL_STOPPED)),
        FAILED: choice(when("$sampling = 'a rollout'", REJECT), otherwise("See whose answer it was")),
        # Another execution may have begun to release the next version since this one was read back.
        "See whose answer it was": call(
            "sagemaker:describeEndpoint", {"EndpointName": deployment.endpoint}, BY_WHOM, catch=WAIT,
            assign={"asked": expression("$states.result.{'status': EndpointStatus, 'config': EndpointConfigName}")}),
        BY_WHOM: choice(
            when("$asked.status = 'InService' and $asked.config = $endpoint.config", REJECT), otherwise(WAIT)),
    }  # fmt: skip


def _send(deployment: Deployment) -> dict[str, State]:
    answer = {"answer": expression("$string($states.result.Body)")}
    return {SEND: call(*ask(deployment), ANSWERED, assign=answer, catch=FAULT)}


def _send_and_wait(deployment: Deployment) -> dict[str, State]:
    """An asynchronous endpoint puts its answer into S3, or what the model said instead."""
    place = {"place": expression("$states.result.OutputLocation"), "attempts": 0,
             "failed": expression("$states.result.FailureLocation")}  # fmt: skip
    not_yet = "$contains($problem, /NoSuchKey|does not exist/)"
    unanswered = f"The smoke test failed: there was no answer after {ANSWER_SECONDS * ANSWER_ATTEMPTS} seconds at "
    return {
        SEND: call(*ask(deployment), "Wait for the answer", assign=place, catch=FAULT),
        "Wait for the answer": wait("Look for the answer", ANSWER_SECONDS),
        "Look for the answer": call(
            "s3:getObject", address("$place"), ANSWERED, patient=False, catch="Is it still being worked on?",
            assign={"answer": expression("$string($states.result.Body)")},
            caught={"attempts": expression("$attempts + 1")}),
        "Is it still being worked on?": choice(when(f"$not({not_yet})", FAULT), otherwise("Look for a failure")),
        "Look for a failure": call(
            "s3:getObject", address("$failed"), "The model refused the sample request", patient=False,
            assign={"answer": expression("$string($states.result.Body)")}, catch="Is there still time?"),
        "Is there still time?": choice(
            when(f"$not({not_yet})", FAULT),
            when(f"$attempts < {ANSWER_ATTEMPTS}", "Wait for the answer"),
            otherwise(FAILED, reason=expression(f"'{unanswered}' & $place"))),
        "The model refused the sample request": remember(
            FAILED, reason=expression("'The smoke test failed: ' & $substring($answer, 0, 500)")),
    }  # fmt: skip
