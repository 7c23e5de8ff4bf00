"""Tags of SageMaker resources, by ARN."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rehearsal.service import Caller, Params, Permission, Service, ServiceError

KIND = "sagemaker/tags"
LIMIT = 50
Permissions = dict[str, Callable[[Params, Caller], list[Permission]]]


def request_tags(params: Params) -> Params:
    """The condition keys of the tags that a request carries."""
    tags = params.get("Tags") or []
    return {
        **{f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in tags},
        **({"aws:TagKeys": [tag["Key"] for tag in tags]} if tags else {}),
    }


def tagging(arn: str, params: Params) -> list[Permission]:
    """Creating with tags takes sagemaker:AddTags on what is created."""
    return [Permission("sagemaker:AddTags", arn, request_tags(params))] if params.get("Tags") else []


class Tags(Service):
    """AddTags, ListTags, DeleteTags; creators of resources call `tag` and `untag_all`."""

    PERMISSIONS: ClassVar[Permissions] = {
        "AddTags": lambda params, _: [Permission("sagemaker:AddTags", params["ResourceArn"], request_tags(params))],
        "ListTags": lambda params, _: [Permission("sagemaker:ListTags", params["ResourceArn"])],
        "DeleteTags": lambda params, _: [
            Permission("sagemaker:DeleteTags", params["ResourceArn"], {"aws:TagKeys": params["TagKeys"]})
        ],
    }

    def add_tags(self, caller: Caller, params: Params) -> Params:
        self._taggable(params["ResourceArn"])
        return {"Tags": self.tag(params["ResourceArn"], params["Tags"])}

    def list_tags(self, caller: Caller, params: Params) -> Params:
        self._taggable(params["ResourceArn"])
        return {"Tags": self.tags_of(params["ResourceArn"])}

    def delete_tags(self, caller: Caller, params: Params) -> Params:
        self._taggable(params["ResourceArn"])
        kept = [tag for tag in self._stored(params["ResourceArn"]) if tag["Key"] not in params["TagKeys"]]
        self.cloud.store.put(KIND, params["ResourceArn"], {"Tags": kept})
        return {}

    def tags_of(self, arn: str) -> list[dict[str, str]]:
        return self._stored(arn)

    def _stored(self, arn: str) -> list[dict[str, str]]:
        return list((self.cloud.store.get(KIND, arn) or {"Tags": []})["Tags"])

    def tag(self, arn: str, tags: list[dict[str, str]] | None) -> list[dict[str, str]]:
        """Add or overwrite; returns all tags."""
        with self.cloud.store.transaction():
            merged = {tag["Key"]: tag for tag in [*self._stored(arn), *(tags or [])]}
            if len(merged) > LIMIT:
                raise ServiceError("ResourceLimitExceeded", f"{arn} can't have more than {LIMIT} tags")
            self.cloud.store.put(KIND, arn, {"Tags": list(merged.values())})
        return list(merged.values())

    def untag_all(self, arn: str) -> None:
        self.cloud.store.delete(KIND, arn)

    def _taggable(self, arn: str) -> None:
        kind = arn.split(":", 5)[-1].partition("/")[0]
        if kind == "model-package":
            raise ServiceError("ValidationException", f"{arn}: a version has the tags of its model package group")
        if (
            kind in ("model-package-group", "model", "endpoint-config", "endpoint")
            and self.cloud.store.get(f"sagemaker/{kind}", arn) is None
        ):
            raise ServiceError("ValidationException", f"Could not find {kind} '{arn}'.")
