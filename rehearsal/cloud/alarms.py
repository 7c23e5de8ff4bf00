"""CloudWatch alarms: replaces ministack's evaluation (it ignores dimensions, N-of-M, missing data) and its actions.

Metrics and the alarms' records stay ministack's; what decides their state is `alarm_rule`, on a scaled tick.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import cloudwatch

from rehearsal.cloud import alarm_rule
from rehearsal.cloud.roles import Roles
from rehearsal.repeater import Repeater
from rehearsal.service import Caller, Params, Permission

log = logging.getLogger("rehearsal")
PERIOD_SECONDS = 60
TICKS_A_PERIOD = 4
RETENTION_SECONDS, LEAST_RETENTION_SECONDS = 15 * 24 * 3600, 3600
"""CloudWatch keeps datapoints of a minute for 15 days: scaled, but never less than an hour."""
TOPICS, FUNCTIONS = "cloudwatch.amazonaws.com", "lambda.alarms.cloudwatch.amazonaws.com"
_ACTIONS = {"ALARM": "AlarmActions", "OK": "OKActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
_NUMBERS = ("Period", "EvaluationPeriods", "DatapointsToAlarm")
Client = Callable[..., Any]
Emit = Callable[[str, str, Params, list[str], Caller], None]
OnLoop = Callable[[Callable[[], None]], None]


class Alarms:
    """Evaluates every alarm of every account; a change of state is an event, and carries out the alarm's actions."""

    def __init__(self, client: Client, roles: Roles, emit: Emit, on_loop: OnLoop, time_scale: float) -> None:
        self._client, self._roles, self._emit, self._on_loop = client, roles, emit, on_loop
        self._time_scale = time_scale
        self._numbers = itertools.count()
        self._workers = ThreadPoolExecutor(4, "alarm-actions")
        pause = alarm_rule.period_seconds(PERIOD_SECONDS, time_scale) / TICKS_A_PERIOD
        self._thread = Repeater("alarms", self._run, lambda: pause)

    def install(self) -> None:
        cloudwatch._evaluate_alarm = lambda alarm: None
        cloudwatch._evict_old_metrics = lambda: None
        cloudwatch._dispatch_alarm_actions = self._changed
        cloudwatch._put_metric_alarm = _refusing(cloudwatch._put_metric_alarm)
        cloudwatch._describe_alarms_for_metric = _by_dimensions(cloudwatch._describe_alarms_for_metric)
        put: Callable[[Params], None] = cloudwatch.cloudformation_put_metric_alarm

        def put_from_template(alarm: Params) -> None:
            if problems := list(alarm_rule.refused(alarm)):
                raise ValueError(f"alarm {alarm['AlarmName']}: {'; '.join(problems)}")
            put(alarm)

        cloudwatch.cloudformation_put_metric_alarm = put_from_template

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        if next(self._numbers) % (TICKS_A_PERIOD * 60) == 0:
            self._on_loop(self._evict)
        self._on_loop(self.tick)

    def tick(self) -> None:
        """Evaluate every alarm once; on ministack's event loop, for its dictionaries have no locks."""
        now = time.time()
        for (account, region, name), alarm in list(cloudwatch._alarms._data.items()):
            try:
                with request_scope(account, region):
                    self._evaluate(alarm, now)
            except Exception:
                log.exception("alarm %s could not be evaluated", name)

    def _evaluate(self, alarm: Params, now: float) -> None:
        period = alarm_rule.period_seconds(alarm["Period"], self._time_scale)
        since = now - period * (alarm["EvaluationPeriods"] + alarm_rule.FURTHER_BACK + 2)
        verdict = alarm_rule.evaluate(alarm, _points(alarm, since), now, self._time_scale)
        if verdict.state == alarm["StateValue"]:
            return
        data = json.dumps(_reason_data(alarm, verdict, now))
        before, previous = alarm["StateValue"], _state_of(alarm)
        alarm.update(StateValue=verdict.state, StateReason=verdict.reason, StateReasonData=data)
        alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = int(now)
        cloudwatch._record_history(alarm["AlarmName"], before, verdict.state, verdict.reason, reason_data=data)
        self._changed(alarm, before, verdict.state, verdict.reason, previous)
        cloudwatch._evaluate_parent_alarms(alarm)

    def _changed(self, alarm: Params, old: str, new: str, reason: str, previous: Params | None = None) -> None:
        """An alarm is in a new state: tell EventBridge, and do what the alarm says."""
        caller = Caller(get_account_id(), get_region())
        detail = {
            "alarmName": alarm["AlarmName"],
            "state": _state_of(alarm),
            "previousState": previous or {"value": old},
            "configuration": _configuration(alarm),
        }
        self._emit("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm["AlarmArn"]], caller)
        if alarm.get("ActionsEnabled", True):
            for action in alarm.get(_ACTIONS[new]) or []:
                # A scaling policy looks at its alarms itself (rehearsal/application_autoscaling.py).
                if action.split(":")[2] != "autoscaling":
                    self._workers.submit(self._act, action, dict(alarm), detail, old, caller)

    def _act(self, action: str, alarm: Params, detail: Params, old: str, caller: Caller) -> None:
        deliver = self._publish if action.split(":")[2] == "sns" else self._invoke
        try:
            deliver(action, alarm, detail, old, caller)
        except Exception as error:
            log.error("alarm %s could not do %s: %s", alarm["AlarmName"], action, error)

    def _publish(self, topic: str, alarm: Params, detail: Params, old: str, caller: Caller) -> None:
        topics = self._client("sns", account=caller.account, region=caller.region)
        policy = topics.get_topic_attributes(TopicArn=topic)["Attributes"].get("Policy")
        if not _is_default(policy):
            self._must_admit(policy, TOPICS, Permission("sns:Publish", topic), alarm)
        name, state = alarm["AlarmName"], alarm["StateValue"]
        message = json.dumps(_message(alarm, old, caller))
        topics.publish(TopicArn=topic, Subject=f'{state}: "{name}" in {caller.region}'[:100], Message=message)

    def _invoke(self, function: str, alarm: Params, detail: Params, old: str, caller: Caller) -> None:
        functions = self._client("lambda", account=caller.account, region=caller.region)
        try:
            policy = functions.get_policy(FunctionName=function)["Policy"]
        except functions.exceptions.ResourceNotFoundException:
            policy = None
        self._must_admit(policy, FUNCTIONS, Permission("lambda:InvokeFunction", function), alarm)
        payload = {
            "source": "aws.cloudwatch",
            "alarmArn": alarm["AlarmArn"],
            "accountId": caller.account,
            "region": caller.region,
            "time": _iso(time.time()),
            "alarmData": detail,
        }
        functions.invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(payload).encode())

    def _must_admit(self, policy: Any, principal: str, permission: Permission, alarm: Params) -> None:
        if not self._roles.admits(policy, principal, permission, alarm["AlarmArn"]):
            raise PermissionError(f"its resource policy does not let {principal} do {permission.action}")

    def _evict(self) -> None:
        oldest = time.time() - max(RETENTION_SECONDS / self._time_scale, LEAST_RETENTION_SECONDS)
        for key, points in list(cloudwatch._metrics._data.items()):
            kept = [point for point in points if point["Timestamp"] >= oldest]
            if kept:
                cloudwatch._metrics._data[key] = kept
            else:
                del cloudwatch._metrics._data[key]


def _points(alarm: Params, since: float) -> list[Params]:
    """The recent points of the alarm's own metric: namespace, name and exactly its dimensions."""
    dimensions = cloudwatch._dims_key(cloudwatch._dims_from_list(alarm.get("Dimensions") or []))
    points = cloudwatch._metrics.get((alarm["Namespace"], alarm["MetricName"], dimensions)) or []
    # They arrive nearly in order of time; a late one may lie some periods before its neighbours.
    recent = itertools.takewhile(lambda point: point["Timestamp"] >= since - PERIOD_SECONDS, reversed(points))
    return [point for point in recent if point["Timestamp"] >= since]


def _refusing(original: Callable[..., Any]) -> Callable[..., Any]:
    """PutMetricAlarm, refusing at creation what could not be evaluated."""

    def put(params: Params, decoded: Params, is_cbor: bool, is_json: bool = False) -> Any:
        given = decoded if is_cbor or is_json else _from_query(params)
        if problems := list(alarm_rule.refused({"Statistic": None, **given})):
            message = f"alarm {given.get('AlarmName')}: {'; '.join(problems)}"
            return cloudwatch._error("ValidationError", message, 400, use_json=is_json, use_cbor=is_cbor)
        return original(params, decoded, is_cbor, is_json)

    return put


def _from_query(params: Params) -> Params:
    given: Params = {key: values[0] if isinstance(values, list) else values for key, values in params.items()}
    given |= {key: int(given[key]) for key in _NUMBERS if given.get(key)}
    for kind in _ACTIONS.values():
        given[kind] = [value for key, value in given.items() if key.startswith(f"{kind}.member.")]
    window = [key.split(".")[1] for key in given if key.startswith("EvaluationWindow.")]
    return {**given, "Metrics": [key for key in given if key.startswith("Metrics.")], "EvaluationWindow": window}


def _by_dimensions(original: Callable[..., Any]) -> Callable[..., Any]:
    """DescribeAlarmsForMetric for exactly the dimensions asked for; ministack ignores them."""

    def describe(params: Params, decoded: Params, is_cbor: bool, is_json: bool = False) -> Any:
        if not is_json:
            return original(params, decoded, is_cbor, is_json)
        wanted = _metric(decoded)
        found = [alarm for alarm in cloudwatch._alarms.values() if _metric(alarm) == wanted]
        return cloudwatch._json_ok({"MetricAlarms": found})

    return describe


def _metric(of: Params) -> tuple[Any, ...]:
    dimensions = cloudwatch._dims_from_list(of.get("Dimensions") or [])
    return of.get("Namespace"), of.get("MetricName"), cloudwatch._dims_key(dimensions)


def _state_of(alarm: Params) -> Params:
    state = {"value": alarm["StateValue"], "reason": alarm.get("StateReason", "")}
    if data := alarm.get("StateReasonData"):
        state["reasonData"] = data
    return {**state, "timestamp": _iso(alarm.get("StateUpdatedTimestamp") or time.time())}


def _configuration(alarm: Params) -> Params:
    if "AlarmRule" in alarm:
        return {"alarmRule": alarm["AlarmRule"]}
    metric = {
        "namespace": alarm["Namespace"],
        "name": alarm["MetricName"],
        "dimensions": cloudwatch._dims_from_list(alarm.get("Dimensions") or []),
    }
    stat = alarm.get("ExtendedStatistic") or alarm["Statistic"]
    stated = {"metric": metric, "period": alarm["Period"], "stat": stat}
    return {
        "description": alarm.get("AlarmDescription", ""),
        "metrics": [{"id": "m1", "metricStat": stated, "returnData": True}],
    }


def _reason_data(alarm: Params, verdict: alarm_rule.Verdict, now: float) -> Params:
    return {
        "version": "1.0",
        "queryDate": _iso(now),
        "statistic": alarm.get("ExtendedStatistic") or alarm["Statistic"],
        "period": alarm["Period"],
        "recentDatapoints": [point for point in verdict.datapoints if point is not None],
        "threshold": alarm["Threshold"],
    }


def _message(alarm: Params, old: str, caller: Caller) -> Params:
    """What a topic's subscribers read."""
    trigger = ("MetricName", "Namespace", "Period", "EvaluationPeriods", "ComparisonOperator", "Threshold")
    more = ("DatapointsToAlarm", "TreatMissingData", "Unit", "Dimensions", "Statistic", "ExtendedStatistic")
    return {
        "AlarmName": alarm["AlarmName"],
        "AlarmDescription": alarm.get("AlarmDescription", ""),
        "AWSAccountId": caller.account,
        "NewStateValue": alarm["StateValue"],
        "NewStateReason": alarm.get("StateReason", ""),
        "StateChangeTime": _iso(alarm.get("StateUpdatedTimestamp") or time.time()),
        "Region": caller.region,
        "AlarmArn": alarm["AlarmArn"],
        "OldStateValue": old,
        "Trigger": {key: alarm[key] for key in (*trigger, *more) if alarm.get(key) is not None},
    }


def _is_default(policy: str | None) -> bool:
    """The policy of a topic that was given none lets everything in its own account publish, alarms too."""
    statements = json.loads(policy).get("Statement", []) if policy else []
    return not policy or [statement.get("Sid") for statement in statements] == ["__default_statement_ID"]


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
