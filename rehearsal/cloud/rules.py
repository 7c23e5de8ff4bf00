"""EventBridge: a rule's targets are called over loopback, by the target's role or as the resource's policy allows."""

from __future__ import annotations

import contextvars
import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from ministack.core.responses import get_account_id, get_region
from ministack.services import eventbridge

from rehearsal.cloud.roles import Roles
from rehearsal.service import Params, Permission, ServiceError

log = logging.getLogger("rehearsal")
PRINCIPAL = "events.amazonaws.com"
ATTEMPTS, BACKOFF_SECONDS = 4, 2.0
_TRANSIENT = ("Throttl", "TooManyRequests", "ServiceUnavailable", "InternalFailure", "ConcurrentPipelineExecution")


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one target of a rule."""

    rule: str
    target: Params
    event_id: str
    account: str
    region: str

    @property
    def arn(self) -> str:
        return str(self.target["Arn"])


class Undeliverable(Exception):
    """The target can't be called, and trying again would not help."""


_delivery: contextvars.ContextVar[Delivery | None] = contextvars.ContextVar("delivery", default=None)
Client = Callable[..., Any]
PutOnBus = Callable[[Params, str, str, str], None]
"""Puts an event on the bus of that name, account and region."""


class Rules:
    """Replaces how ministack delivers events; matching and input transformation stay its own."""

    def __init__(self, client: Client, roles: Roles, put_on_bus: PutOnBus, time_scale: float) -> None:
        self._client, self._roles, self._put_on_bus, self._time_scale = client, roles, put_on_bus, time_scale
        self._workers = ThreadPoolExecutor(16, "deliveries")

    def install(self) -> None:
        self._transform: Callable[..., None] = eventbridge._invoke_target
        eventbridge._invoke_target = self._invoke_target
        eventbridge._dispatch_to_lambda = lambda arn, payload: self._later(self._to_lambda, payload)
        eventbridge._dispatch_to_stepfunctions = lambda arn, payload: self._later(self._to_state_machine, payload)
        eventbridge._dispatch_to_sns = lambda arn, payload: self._later(self._to_topic, payload)
        eventbridge._dispatch_to_sqs = lambda spec, payload, parameters=None: self._later(self._to_queue, payload)
        eventbridge._dispatch_to_api_destination = lambda *_: log.warning("API destinations are not rehearsed")

    def _invoke_target(self, target: Params, event: Params, rule: Params, view: Any = None) -> None:
        delivery = Delivery(rule["Arn"], target, event["EventId"], get_account_id(), get_region())
        service = delivery.arn.split(":")[2]
        if service == "codepipeline":
            self._workers.submit(self._deliver, self._to_pipeline, delivery, "")
        elif ":event-bus/" in delivery.arn:
            self._workers.submit(self._deliver, lambda to, _: self._to_bus(to, dict(event)), delivery, "")
        elif service in ("lambda", "states", "sns", "sqs"):
            token = _delivery.set(delivery)
            self._transform(target, event, rule, view)
            _delivery.reset(token)
        else:
            log.error("rule %s: targets like %s are not rehearsed, nothing was delivered", rule["Name"], delivery.arn)

    def _later(self, send: Callable[[Delivery, str], None], payload: str) -> None:
        delivery = _delivery.get()
        if delivery is not None:
            self._workers.submit(self._deliver, send, delivery, payload)

    def _deliver(self, send: Callable[[Delivery, str], None], delivery: Delivery, payload: str) -> None:
        for attempt in range(ATTEMPTS):
            try:
                send(delivery, payload)
            except (ClientError, BotoCoreError, ServiceError, Undeliverable) as error:
                if attempt + 1 < ATTEMPTS and any(word in str(error) for word in _TRANSIENT):
                    time.sleep(BACKOFF_SECONDS * 2**attempt / self._time_scale)
                    continue
                self._give_up(delivery, payload, error)
            except Exception:
                log.exception("delivery to %s broke", delivery.arn)
            return

    def _give_up(self, delivery: Delivery, payload: str, error: Exception) -> None:
        log.error("rule %s could not deliver to %s: %s", delivery.rule.rpartition("/")[2], delivery.arn, error)
        queue = delivery.target.get("DeadLetterConfig", {}).get("Arn")
        if queue:
            self._send(delivery, queue, payload)

    # -- targets --------------------------------------------------------------------------------------

    def _as_role(self, service: str, delivery: Delivery) -> Any:
        if not (role := delivery.target.get("RoleArn")):
            raise Undeliverable("the target has no role")
        place = {"account": delivery.account, "region": delivery.region}
        return self._client(service, role=role, by=PRINCIPAL, session=delivery.event_id, source=delivery.rule, **place)

    def _as_service(self, service: str, delivery: Delivery) -> Any:
        return self._client(service, account=delivery.account, region=delivery.region)

    def _must_admit(self, policy: Any, action: str, delivery: Delivery, resource: str) -> None:
        if not self._roles.admits(policy, PRINCIPAL, Permission(action, resource), delivery.rule):
            raise Undeliverable(f"its resource policy does not let {PRINCIPAL} do {action} for this rule")

    def _to_lambda(self, delivery: Delivery, payload: str) -> None:
        functions = self._as_service("lambda", delivery)
        try:
            policy = functions.get_policy(FunctionName=delivery.arn)["Policy"]
        except functions.exceptions.ResourceNotFoundException:
            policy = None
        self._must_admit(policy, "lambda:InvokeFunction", delivery, delivery.arn)
        functions.invoke(FunctionName=delivery.arn, InvocationType="Event", Payload=payload.encode())

    def _to_state_machine(self, delivery: Delivery, payload: str) -> None:
        digest = hashlib.sha256(delivery.arn.encode()).hexdigest()[:32]
        self._as_role("stepfunctions", delivery).start_execution(
            stateMachineArn=delivery.arn, input=payload, name=f"{delivery.event_id}_{digest}"
        )

    def _to_bus(self, delivery: Delivery, event: Params) -> None:
        """Under the target's role, which the bus's own policy has to know if it is another account's."""
        if not (role := delivery.target.get("RoleArn")):
            raise Undeliverable("the target has no role")
        if delivery.rule in event.get("_Path", ()):
            raise Undeliverable("the event came from this rule")
        who = self._roles.assume(role, PRINCIPAL, delivery.event_id, delivery.region, source=delivery.rule)
        self._roles.decide(who, Permission("events:PutEvents", delivery.arn))
        _, _, _, region, account, bus = delivery.arn.split(":", 5)
        event["_Path"] = [*event.get("_Path", ()), delivery.rule]
        self._put_on_bus(event, bus.removeprefix("event-bus/"), account, region)

    def _to_pipeline(self, delivery: Delivery, payload: str) -> None:
        self._as_role("codepipeline", delivery).start_pipeline_execution(name=delivery.arn.rpartition(":")[2])

    def _to_topic(self, delivery: Delivery, payload: str) -> None:
        topics = self._as_service("sns", delivery)
        policy = topics.get_topic_attributes(TopicArn=delivery.arn)["Attributes"].get("Policy")
        self._must_admit(policy, "sns:Publish", delivery, delivery.arn)
        topics.publish(TopicArn=delivery.arn, Message=payload)

    def _to_queue(self, delivery: Delivery, payload: str) -> None:
        self._send(delivery, delivery.arn, payload)

    def _send(self, delivery: Delivery, queue: str, payload: str) -> None:
        queues = self._as_service("sqs", delivery)
        url = queues.get_queue_url(QueueName=queue.rpartition(":")[2])["QueueUrl"]
        attributes = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"]).get("Attributes", {})
        self._must_admit(attributes.get("Policy"), "sqs:SendMessage", delivery, queue)
        group = delivery.target.get("SqsParameters", {}).get("MessageGroupId")
        queues.send_message(QueueUrl=url, MessageBody=payload, **({"MessageGroupId": group} if group else {}))
