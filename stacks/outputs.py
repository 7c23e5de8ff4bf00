"""Stack outputs, by which people and tools discover what was deployed."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import CfnCondition, CfnOutput, Stack


def publish(stack: Stack, values: Mapping[str, str], condition: CfnCondition | None = None) -> None:
    """Give the stack outputs of exactly these names, there where the condition holds."""
    for name, value in values.items():
        CfnOutput(stack, f"{name}Output", value=value, condition=condition).override_logical_id(name)
