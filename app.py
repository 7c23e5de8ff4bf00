"""The composition root: every model folder becomes its stacks; `python app.py` writes `cdk.out`."""

from __future__ import annotations

import sys
from pathlib import Path

from config import Invalid, load_settings
from contract import load_models
from stacks.application import application
from stacks.environments import Environments
from stacks.model_stacks import model_stacks
from stacks.repository_stack import RepositoryStack

ROOT = Path(__file__).parent


def main() -> None:
    settings = load_settings()
    models = load_models(ROOT, settings.guardrails)
    app = application(ROOT, settings)
    environments = Environments(app, settings, models)
    repository = RepositoryStack(
        app,
        "Pushline-Repository",
        settings=settings,
        foundation=environments.foundation,
        env=environments.training,
    )
    for model in models:
        model_stacks(app, model, settings=settings, environments=environments, repository=repository)
    app.synth()


if __name__ == "__main__":
    try:
        main()
    except Invalid as problems:
        sys.exit(str(problems))
