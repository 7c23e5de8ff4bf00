"""The stacks of one model: what trains and watches it, and for each environment what releases and serves it."""

from __future__ import annotations

from aws_cdk import App

from config import Settings
from contract import Model
from stacks.deployment import Deployment, deployments
from stacks.environments import Environments
from stacks.monitoring_stack import MonitoringStack
from stacks.place import is_apart, place
from stacks.release_stack import ReleaseStack
from stacks.repository_stack import RepositoryStack
from stacks.serving_stack import ServingStack
from stacks.training_stack import TrainingStack


def model_stacks(app: App, model: Model, *, settings: Settings, environments: Environments,
                 repository: RepositoryStack) -> None:  # fmt: skip
    """Every stack of `model`."""
    training = TrainingStack(app, f"{model.title}-Training", settings=settings, model=model, repository=repository,
                             foundation=environments.foundation, env=environments.training)  # fmt: skip
    MonitoringStack(app, f"{model.title}-Monitoring", settings=settings, model=model,
                    foundation=environments.foundation, live=environments.serving["production"],
                    env=environments.training)  # fmt: skip
    for deployment in deployments(model):
        release, serving = _deployed(app, deployment, settings, environments)
        if is_apart(settings, deployment.environment):
            # An event bus before the rule that puts events on it, and the registry before the first look at it.
            training.add_stack_dependency(release)
            serving.add_stack_dependency(training)


def _deployed(app: App, deployment: Deployment, settings: Settings,
              environments: Environments) -> tuple[ReleaseStack, ServingStack]:  # fmt: skip
    environment, env = environments.serving[deployment.environment], place(settings, deployment.environment)
    release = ReleaseStack(app, deployment.release_stack, settings=settings, deployment=deployment,
                           environment=environment, foundation=environments.foundation, env=env)  # fmt: skip
    serving = ServingStack(app, deployment.serving_stack, deployment=deployment, limits=settings.guardrails.serving,
                           environment=environment, execution_role=release.roles.serving, env=env)  # fmt: skip
    return release, serving
