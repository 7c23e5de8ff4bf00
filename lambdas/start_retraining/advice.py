"""What people are told to do: about folders of models that are not deployed, and models whose folder is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lambdas.start_retraining.events import MANUAL_SOURCE


def about_new(name: str) -> str:
    """A model without stacks; a push alone never gives it some."""
    return (f"model_code/{name} is new and has no stacks yet: run cdk deploy '{_title(name)}-*', then push a change to "
            f"it, or ask for its first retraining: ./pushline retrain {name}")  # fmt: skip


def first_retraining(name: str, function: str) -> str:
    """The AWS CLI's command for it."""
    payload = json.dumps({"source": MANUAL_SOURCE, "detail": {"model": name, "reason": "first retraining"}})
    return (f"aws lambda invoke --function-name {function} --cli-binary-format raw-in-base64-out /dev/stdout "
            f"--payload '{payload}'")  # fmt: skip


def about_more(names: Sequence[str]) -> str:
    """New folders beyond those that are looked into."""
    return (f"{len(names)} more folders of models are new and not looked into, from model_code/{names[0]} to "
            f"model_code/{names[-1]}; those with a model.yaml wait for a cdk deploy")  # fmt: skip


def about_unfit(name: str) -> str:
    """A folder with a model.yaml whose name no stack can have."""
    return (f"model_code/{name} can't be a model: its name must be lower case letters, digits and underscores, begin "
            "with a letter and have at most 26 characters; rename the folder")  # fmt: skip


def about_gone(name: str) -> str:
    """A model whose stacks remain."""
    return f"there is no model_code/{name}/model.yaml any more; cdk destroy '{_title(name)}-*' removes it"


def _title(name: str) -> str:
    """The model's name in stack names."""
    return "".join(part.capitalize() for part in name.split("_"))
