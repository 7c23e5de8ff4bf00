"""What watches one model, as its template states it."""

from __future__ import annotations

import json

from lambdas.start_retraining.alarms import KINDS
from stacks.monitor_workflow import DAYS, SUBSTITUTIONS
from stacks.retrain_workflow import IN_A_VPC
from tests.conftest import Assembly
from tests.stacks import policies

MONITORING = "FlightDelay-Monitoring"
MOST_INPUTS = 10
"""A processing job takes no more."""


def test_alarms_take_two_of_three_runs_and_are_named_for_the_door(assembly: Assembly) -> None:
    alarms = [found["Properties"] for found in assembly.resources("AWS::CloudWatch::Alarm", MONITORING).values()]
    assert {alarm["AlarmName"]: alarm["MetricName"] for alarm in alarms} == {
        "flight-delay-drift-features": "FeatureDrift", "flight-delay-drift-predictions": "PredictionDrift",
        "flight-delay-drift-quality": "QualityLoss"}  # fmt: skip
    assert [alarm["AlarmName"] for alarm in alarms] == [f"flight-delay-drift-{kind}" for kind in KINDS]
    for alarm in alarms:
        assert (alarm["DatapointsToAlarm"], alarm["EvaluationPeriods"], alarm["Period"]) == (2, 3, 86400)
        assert alarm["Dimensions"] == [{"Name": "Model", "Value": "flight_delay"}]
        assert (alarm["Namespace"], alarm["TreatMissingData"]) == ("Pushline", "ignore")


def test_a_models_own_bound_goes_before_the_platforms(assembly: Assembly) -> None:
    def bounds(stack: str) -> list[float]:
        alarms = assembly.resources("AWS::CloudWatch::Alarm", stack).values()
        return [alarm["Properties"]["Threshold"] for alarm in alarms]

    assert bounds(MONITORING) == [1.0, 1.0, 0.05]
    assert bounds("BikeDemand-Monitoring") == [1.0, 1.0, 0.1]


def test_it_runs_on_a_schedule_as_a_role_that_can_only_start_it(assembly: Assembly) -> None:
    rule = assembly.one("AWS::Events::Rule", MONITORING)
    assert rule["ScheduleExpression"] == "rate(24 hours)"
    assert policies.actions(assembly, "StartRole") == {"states:StartExecution"}


def test_the_job_reads_this_model_only_and_writes_reports_only(assembly: Assembly) -> None:
    found = policies.of(assembly, "JobRole", MONITORING)
    written = [place for each in found if "s3:PutObject" in each.actions for place in each.resources]
    assert len(written) == 1
    assert "/monitoring/flight-delay/*" in written[0]
    assert not {action for each in found for action in each.actions if action.startswith("s3:Delete")}


def test_metrics_go_into_our_namespace_only(assembly: Assembly) -> None:
    found = [each for each in policies.of(assembly, "MonitorRole", MONITORING)
             if "cloudwatch:PutMetricData" in each.actions]  # fmt: skip
    assert [each.conditions for each in found] == [{"StringEquals": {"cloudwatch:namespace": "Pushline"}}]


def test_the_definition_is_completed_and_fits_the_job(assembly: Assembly) -> None:
    machine = assembly.one("AWS::StepFunctions::StateMachine", MONITORING)
    assert set(machine["DefinitionSubstitutions"]) == {*SUBSTITUTIONS, *IN_A_VPC}
    watch = json.loads(machine["DefinitionString"])["States"]["Watch"]["Arguments"]
    inside = {"Subnets": ["${Subnets}"], "SecurityGroupIds": ["${SecurityGroups}"]}
    assert watch["NetworkConfig"] == {"EnableNetworkIsolation": True, "VpcConfig": inside}
    assert all(len(word) <= 256 for word in watch["AppSpecification"]["ContainerEntrypoint"])
    assert DAYS + len(("challenger", "baseline", "holdout")) <= MOST_INPUTS
