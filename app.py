"""The composition root: every model folder becomes its stacks; `python app.py` writes `cdk.out`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from config import Invalid, load_settings
from contract import load_models
from stacks.application import application
from stacks.deployment import deployments
from stacks.foundation_stack import FoundationStack
from stacks.monitoring_stack import MonitoringStack
from stacks.place import place
from stacks.release_stack import ReleaseStack
from stacks.repository_stack import RepositoryStack
from stacks.serving_stack import ServingStack
from stacks.training_stack import TrainingStack

ROOT = Path(__file__).parent


def main() -> None:
    settings = load_settings()
    models = load_models(ROOT, settings.guardrails)
    app, env = application(ROOT), place(settings)
    foundation = FoundationStack(app, "Pushline-Foundation", settings=settings, env=env)
    shared: dict[str, Any] = {"settings": settings, "foundation": foundation, "env": env}
    repository = RepositoryStack(app, "Pushline-Repository", **shared).repository
    for model in models:
        TrainingStack(app, f"{model.title}-Training", model=model, repository=repository, **shared)
        MonitoringStack(app, f"{model.title}-Monitoring", model=model, **shared)
        for deployment in deployments(model):
            release = ReleaseStack(app, deployment.release_stack, deployment=deployment, **shared)
            ServingStack(app, deployment.serving_stack, deployment=deployment, limits=settings.guardrails.serving,
                         foundation=foundation, execution_role=release.roles.serving, env=env)  # fmt: skip
    app.synth()


if __name__ == "__main__":
    try:
        main()
    except Invalid as problems:
        sys.exit(str(problems))
