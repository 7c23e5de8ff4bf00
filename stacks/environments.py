"""The environments that `config/platform.yaml` names, and what every model shares in each of them."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import App, Environment

from config import Settings
from contract import Model
from stacks.crossing import artifact_readers, refuse_what_can_not_cross, traffic_readers
from stacks.deployment import SERVING
from stacks.environment_stack import ServingEnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.network_stack import network
from stacks.place import place


class Environments:
    """Training's foundation, and the stack of each environment that serves."""

    def __init__(self, app: App, settings: Settings, models: Sequence[Model]) -> None:
        refuse_what_can_not_cross(settings, models)
        self.training: Environment = place(settings, "training")
        self.foundation = FoundationStack(app, "Pushline-Foundation", settings=settings, env=self.training,
                                          readers=artifact_readers(settings, models))  # fmt: skip
        self.serving = {name: ServingEnvironmentStack(app, f"Pushline-{name.capitalize()}", settings=settings,
                                                      environment=name, env=place(settings, name),
                                                      readers=traffic_readers(settings, models, name))
                        for name in SERVING}  # fmt: skip
        for environment in (self.foundation, *self.serving.values()):
            environment.network = network(app, settings=settings, environment=environment)
