"""The composition root: every model folder becomes its stacks; `python app.py` writes `cdk.out`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import aws_cdk as cdk

from config import load_settings
from contract import load_models
from stacks.acknowledgements import Checks
from stacks.deployment import deployments
from stacks.foundation_stack import FoundationStack
from stacks.place import place
from stacks.release_stack import ReleaseStack
from stacks.repository_stack import RepositoryStack
from stacks.serving_stack import ServingStack
from stacks.training_stack import TrainingStack

ROOT = Path(__file__).parent


def main() -> None:
    settings = load_settings()
    models = load_models(ROOT, settings.guardrails)
    # The CDK CLI passes cdk.json's context itself; without the CLI the templates must be the same.
    context = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    # The CDK CLI checks the bootstrap's version; a rule in the templates would demand its SSM parameter.
    synthesizer = cdk.DefaultStackSynthesizer(generate_bootstrap_version_rule=False)
    app = cdk.App(outdir=os.environ.get("CDK_OUTDIR", str(ROOT / "cdk.out")), context=context,
                  analytics_reporting=False, default_stack_synthesizer=synthesizer)  # fmt: skip
    cdk.Validations.of(app).add_plugins(Checks(app))
    env = place(settings)
    foundation = FoundationStack(app, "Pushline-Foundation", settings=settings, env=env)
    shared: dict[str, Any] = {"settings": settings, "foundation": foundation, "env": env}
    repository = RepositoryStack(app, "Pushline-Repository", models=models, **shared).repository
    for model in models:
        TrainingStack(app, f"{model.title}-Training", model=model, repository=repository, **shared)
        for deployment in deployments(model):
            release = ReleaseStack(app, deployment.release_stack, deployment=deployment, **shared)
            ServingStack(app, deployment.serving_stack, deployment=deployment, limits=settings.guardrails.serving,
                         key=foundation.key, execution_role=release.roles.serving, env=env)  # fmt: skip
    app.synth()


if __name__ == "__main__":
    main()
