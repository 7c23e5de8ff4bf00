"""The CDK app as every way of starting it must make it, so that the same config gives the same bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import aws_cdk as cdk

from config import Settings
from stacks.acknowledgements import Checks

PERMISSIONS_BOUNDARY = "@aws-cdk/core:permissionsBoundary"
"""The context by which the CDK bounds every role of an app, those of custom resources too."""


def application(root: Path, settings: Settings) -> cdk.App:
    """The app of the repository at `root`, checked by cdk-nag; written to `CDK_OUTDIR`, else `cdk.out`."""
    # The CDK CLI passes cdk.json's context itself; without the CLI the templates must be the same.
    context = json.loads((root / "cdk.json").read_text(encoding="utf-8"))["context"]
    if settings.permissions_boundary:
        context[PERMISSIONS_BOUNDARY] = _boundary(settings.permissions_boundary)
    app = cdk.App(
        outdir=os.environ.get("CDK_OUTDIR", str(root / "cdk.out")),
        context=context,
        analytics_reporting=False,
        # The CDK CLI checks the bootstrap's version; a rule in the templates would demand its SSM parameter.
        default_stack_synthesizer=cdk.DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
    )
    cdk.Validations.of(app).add_plugins(Checks(app))
    return app


def _boundary(policy: str) -> dict[str, str]:
    return {"arn" if policy.startswith("arn:") else "name": policy}
