"""Tags of scalable targets, by ARN."""

from __future__ import annotations

from rehearsal.application_autoscaling.records import TARGET
from rehearsal.service import Caller, Params, Permission, Service, ServiceError

KIND = "autoscaling/tags"
LIMIT = 50
TAGGING = ("TagResource", "UntagResource", "ListTagsForResource")


def tagging(arn: str, tags: dict[str, str]) -> list[Permission]:
    """Registering with tags takes TagResource on what is registered."""
    if not tags:
        return []
    keys = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return [Permission("application-autoscaling:TagResource", arn, {**keys, "aws:TagKeys": [*tags]})]


class Tags(Service):
    """TagResource, UntagResource, ListTagsForResource; registering a target calls `tag`, deregistering `untag_all`."""

    def tag_permissions(self, operation: str, params: Params) -> list[Permission]:
        arn = params["ResourceARN"]
        if operation == "TagResource" and params["Tags"]:
            return tagging(arn, params["Tags"])
        keys = {"aws:TagKeys": params["TagKeys"]} if operation == "UntagResource" else {}
        return [Permission(f"application-autoscaling:{operation}", arn, keys)]

    def tag_resource(self, caller: Caller, params: Params) -> Params:
        self._must_be_registered(params["ResourceARN"])
        self.tag(params["ResourceARN"], params["Tags"])
        return {}

    def untag_resource(self, caller: Caller, params: Params) -> Params:
        arn = params["ResourceARN"]
        self._must_be_registered(arn)
        kept = {key: value for key, value in self._stored(arn).items() if key not in params["TagKeys"]}
        self.cloud.store.put(KIND, arn, {"Tags": kept})
        return {}

    def list_tags_for_resource(self, caller: Caller, params: Params) -> Params:
        self._must_be_registered(params["ResourceARN"])
        return {"Tags": self._stored(params["ResourceARN"])}

    def tag(self, arn: str, tags: dict[str, str]) -> None:
        """Add or overwrite."""
        with self.cloud.store.transaction():
            merged = {**self._stored(arn), **tags}
            if len(merged) > LIMIT:
                raise ServiceError("TooManyTagsException", f"{arn} can't have more than {LIMIT} tags")
            self.cloud.store.put(KIND, arn, {"Tags": merged})

    def untag_all(self, arn: str) -> None:
        self.cloud.store.delete(KIND, arn)

    def _stored(self, arn: str) -> dict[str, str]:
        return dict((self.cloud.store.get(KIND, arn) or {"Tags": {}})["Tags"])

    def _must_be_registered(self, arn: str) -> None:
        if arn not in [target["ScalableTargetARN"] for _, target in self.cloud.store.list(TARGET)]:
            raise ServiceError("ResourceNotFoundException", f"No scalable target found for resource ARN: {arn}")
