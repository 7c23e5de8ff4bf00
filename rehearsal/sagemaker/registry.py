"""The Model Registry: groups of versioned model packages, whose approval status is what may be live."""

from __future__ import annotations

import datetime as dt
import json
import time
import unicodedata
from typing import Any, ClassVar

from rehearsal.sagemaker.listing import page
from rehearsal.sagemaker.tags import Permissions, Tags, request_tags, tagging
from rehearsal.service import Caller, Params, Permission, ServiceError, Unsupported, arn

Document = dict[str, Any]
GROUP, PACKAGE, TOKEN = "sagemaker/model-package-group", "sagemaker/model-package", "sagemaker/model-package-token"
METADATA_ENTRIES, METADATA_KEY, METADATA_VALUE = 50, 128, 256
METADATA_SIGNS = "_.:/=+-@"

_SUMMARY = (
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "ModelLifeCycle",
)
_REGISTERED = (
    "ModelPackageDescription",
    "InferenceSpecification",
    "MetadataProperties",
    "ModelMetrics",
    "Domain",
    "Task",
    "SamplePayloadUrl",
    "CustomerMetadataProperties",
    "DriftCheckBaselines",
    "SkipModelValidation",
    "AdditionalInferenceSpecifications",
    "SourceUri",
    "CertifyForMarketplace",
    "ModelLifeCycle",
)
_EVENT = (
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "InferenceSpecification",
    "ModelPackageStatus",
    "ModelPackageStatusDetails",
    "CertifyForMarketplace",
    "ModelApprovalStatus",
    "MetadataProperties",
    "ModelMetrics",
    "LastModifiedTime",
    "ApprovalDescription",
    "CustomerMetadataProperties",
    "ModelLifeCycle",
)
_REFUSED = (
    "ModelPackageName",
    "ValidationSpecification",
    "SourceAlgorithmSpecification",
    "ModelCard",
    "SecurityConfig",
    "ManagedStorageType",
    "AdditionalInferenceSpecificationsToAdd",
)


def _name(value: str) -> str:
    return value.rpartition("/")[2] if value.startswith("arn:") else value


def group_arn(caller: Caller, name: str) -> str:
    return name if name.startswith("arn:") else arn("sagemaker", caller, f"model-package-group/{name}")


def _package_arn(caller: Caller, name: str) -> str:
    return name if name.startswith("arn:") else arn("sagemaker", caller, f"model-package/{name}")


def _approval(params: Params) -> Params:
    status = params.get("ModelApprovalStatus")
    metadata = {
        f"sagemaker:CustomerMetadataProperties/{key}": value
        for key, value in (params.get("CustomerMetadataProperties") or {}).items()
    }
    stage = params.get("ModelLifeCycle") or {}
    life_cycle = {f"sagemaker:ModelLifeCycle:{key[0].lower()}{key[1:]}": stage[key]
                  for key in ("Stage", "StageStatus") if key in stage}  # fmt: skip
    return {**({"sagemaker:ModelApprovalStatus": status} if status else {}), **metadata, **life_cycle}


def _on_group(operation: str) -> Any:
    return lambda params, caller: [
        Permission(f"sagemaker:{operation}", group_arn(caller, params["ModelPackageGroupName"]))
    ]


def _on_package(operation: str) -> Any:
    return lambda params, caller: [
        Permission(f"sagemaker:{operation}", _package_arn(caller, params["ModelPackageName"]))
    ]


def _creates_group(params: Params, caller: Caller) -> list[Permission]:
    made = group_arn(caller, params["ModelPackageGroupName"])
    return [Permission("sagemaker:CreateModelPackageGroup", made, request_tags(params)), *tagging(made, params)]


def _registers(params: Params, caller: Caller) -> list[Permission]:
    group = group_arn(caller, params.get("ModelPackageGroupName", ""))
    versions = f"{_versions(group)}/*"
    context = {**_approval({"ModelApprovalStatus": "PendingManualApproval", **params}), **request_tags(params)}
    return [Permission("sagemaker:CreateModelPackage", versions, context)]


def _lists_packages(params: Params, caller: Caller) -> list[Permission]:
    group = group_arn(caller, params.get("ModelPackageGroupName", "*"))
    return [Permission("sagemaker:ListModelPackages", f"{_versions(group)}/*")]


def _versions(group: str) -> str:
    return group.replace(":model-package-group/", ":model-package/")


class ModelRegistry(Tags):
    """Model package groups and their versions; every change emits SageMaker's event."""

    PERMISSIONS: ClassVar[Permissions] = {
        "CreateModelPackageGroup": _creates_group,
        "DescribeModelPackageGroup": _on_group("DescribeModelPackageGroup"),
        "DeleteModelPackageGroup": _on_group("DeleteModelPackageGroup"),
        "PutModelPackageGroupPolicy": _on_group("PutModelPackageGroupPolicy"),
        "GetModelPackageGroupPolicy": _on_group("GetModelPackageGroupPolicy"),
        "DeleteModelPackageGroupPolicy": _on_group("DeleteModelPackageGroupPolicy"),
        "ListModelPackageGroups": lambda params, caller: [Permission("sagemaker:ListModelPackageGroups")],
        "CreateModelPackage": _registers,
        "DescribeModelPackage": _on_package("DescribeModelPackage"),
        "DeleteModelPackage": _on_package("DeleteModelPackage"),
        "ListModelPackages": _lists_packages,
        "UpdateModelPackage": lambda params, caller: [
            Permission("sagemaker:UpdateModelPackage", params["ModelPackageArn"], _approval(params))
        ],
    }

    # -- groups -------------------------------------------------------------------------------------------

    def create_model_package_group(self, caller: Caller, params: Params) -> Params:
        name = params["ModelPackageGroupName"]
        made = group_arn(caller, name)
        with self.cloud.store.transaction():
            if self.cloud.store.get(GROUP, made) is not None:
                raise ServiceError("ValidationException", f"Model Package Group already exists: {made}")
            self.cloud.store.put(
                GROUP,
                made,
                {
                    "ModelPackageGroupName": name,
                    "ModelPackageGroupArn": made,
                    "CreationTime": time.time(),
                    "ModelPackageGroupDescription": params.get("ModelPackageGroupDescription"),
                    "CreatedBy": _person(caller),
                    "ModelPackageGroupStatus": "Completed",
                    "versions": 0,
                },
            )
            self.tag(made, params.get("Tags"))
        return {"ModelPackageGroupArn": made}

    def describe_model_package_group(self, caller: Caller, params: Params) -> Params:
        group = self._group(caller, params["ModelPackageGroupName"])
        return {key: value for key, value in group.items() if key not in ("versions", "policy")}

    def list_model_package_groups(self, caller: Caller, params: Params) -> Params:
        groups = [g for key, g in self.cloud.store.list(GROUP) if key.startswith(group_arn(caller, "x")[:-1])]
        found, token = page(groups, params, name="ModelPackageGroupName", key="ModelPackageGroupArn")
        hidden = ("versions", "policy", "CreatedBy")
        return {
            "ModelPackageGroupSummaryList": [{k: v for k, v in g.items() if k not in hidden} for g in found],
            "NextToken": token,
        }

    def delete_model_package_group(self, caller: Caller, params: Params) -> Params:
        with self.cloud.store.transaction():
            group = self._group(caller, params["ModelPackageGroupName"])
            made = group["ModelPackageGroupArn"]
            if any(package["group"] == made for _, package in self.cloud.store.list(PACKAGE)):
                raise ServiceError("ConflictException", f"{made} still contains model packages; delete them first")
            self.cloud.store.delete(GROUP, made)
            self.untag_all(made)
        return {}

    def put_model_package_group_policy(self, caller: Caller, params: Params) -> Params:
        policy = params["ResourcePolicy"]
        if not _is_policy(policy):
            raise ServiceError("ValidationException", "ResourcePolicy is not a policy document in JSON")
        made = self._group(caller, params["ModelPackageGroupName"])["ModelPackageGroupArn"]
        self.cloud.store.update(GROUP, made, lambda group: group.update(policy=policy))
        return {"ModelPackageGroupArn": made}

    def get_model_package_group_policy(self, caller: Caller, params: Params) -> Params:
        return {"ResourcePolicy": self._with_policy(caller, params)["policy"]}

    def delete_model_package_group_policy(self, caller: Caller, params: Params) -> Params:
        made = self._with_policy(caller, params)["ModelPackageGroupArn"]
        self.cloud.store.update(GROUP, made, lambda group: group.pop("policy"))
        return {}

    def resource_policy(self, arn: str) -> str | None:
        """Of a group's versions as of the group; everything else is its own account's only."""
        kind, _, rest = arn.split(":", 5)[-1].partition("/")
        if kind not in ("model-package", "model-package-group"):
            return ""
        made = f"{arn.rpartition(kind)[0]}model-package-group/{rest.partition('/')[0]}"
        return str((self.cloud.store.get(GROUP, made) or {}).get("policy", ""))

    def _with_policy(self, caller: Caller, params: Params) -> Document:
        group = self._group(caller, params["ModelPackageGroupName"])
        if "policy" not in group:
            message = f"the policy of {group['ModelPackageGroupArn']} does not exist."
            raise ServiceError("ValidationException", message)
        return group

    def _group(self, caller: Caller, name: str) -> Document:
        group = self.cloud.store.get(GROUP, group_arn(caller, name))
        if group is None:
            raise ServiceError("ValidationException", f"ModelPackageGroup {group_arn(caller, name)} does not exist.")
        return group

    # -- versions -----------------------------------------------------------------------------------------

    def create_model_package(self, caller: Caller, params: Params) -> Params:
        _refuse(params)
        if "ModelPackageGroupName" not in params:
            raise Unsupported("a model package without ModelPackageGroupName is not rehearsed; name a group")
        if params.get("Tags"):
            raise ServiceError("ValidationException", "a model package version has its group's tags, none of its own")
        _check_metadata(params.get("CustomerMetadataProperties"))
        with self.cloud.store.transaction():
            group = self._group(caller, params["ModelPackageGroupName"])
            if known := self._registered_before(group, params):
                return {"ModelPackageArn": known}
            package = self._next_version(caller, group, params)
        self._changed(package)
        return {"ModelPackageArn": package["ModelPackageArn"]}

    def describe_model_package(self, caller: Caller, params: Params) -> Params:
        package = self._package(params["ModelPackageName"])
        described = {key: value for key, value in package.items() if key != "group"}
        return {**described, "ModelPackageName": package["ModelPackageGroupName"]}

    def list_model_packages(self, caller: Caller, params: Params) -> Params:
        of_account = arn("sagemaker", caller, "model-package/")
        if "ModelPackageGroupName" in params:
            of_account = f"{_versions(group_arn(caller, params['ModelPackageGroupName']))}/"
        packages = [p for key, p in self.cloud.store.list(PACKAGE) if key.startswith(of_account)]
        grouped = "ModelPackageGroupName" in params
        if params.get("ModelPackageType", "Versioned" if grouped else "Unversioned") == "Unversioned":
            packages = []
        if grouped:
            group = self._group(caller, params["ModelPackageGroupName"])["ModelPackageGroupArn"]
            packages = [p for p in packages if p["group"] == group]
        if status := params.get("ModelApprovalStatus"):
            packages = [p for p in packages if p["ModelApprovalStatus"] == status]
        found, token = page(packages, params, name="ModelPackageGroupName", key="ModelPackageArn")
        return {"ModelPackageSummaryList": [_pick(p, _SUMMARY) for p in found], "NextToken": token}

    def update_model_package(self, caller: Caller, params: Params) -> Params:
        _refuse(params, "InferenceSpecification", "SourceUri", "ModelPackageRegistrationType")
        _check_metadata(params.get("CustomerMetadataProperties"))
        made = params["ModelPackageArn"]

        def change(package: Document) -> None:
            package.update(_pick(params, ("ModelApprovalStatus", "ApprovalDescription", "ModelLifeCycle")))
            metadata = {**package.get("CustomerMetadataProperties", {}), **params.get("CustomerMetadataProperties", {})}
            for key in params.get("CustomerMetadataPropertiesToRemove", []):
                metadata.pop(key, None)
            if len(metadata) > METADATA_ENTRIES:
                raise ServiceError("ValidationException", _too_many(len(metadata)))
            package.update(
                {"LastModifiedTime": time.time(), "LastModifiedBy": _person(caller)},
                **({"CustomerMetadataProperties": metadata} if metadata else {}),
            )
            if not metadata:
                package.pop("CustomerMetadataProperties", None)

        self._package(made)
        self._changed(self.cloud.store.update(PACKAGE, made, change))
        return {"ModelPackageArn": made}

    def delete_model_package(self, caller: Caller, params: Params) -> Params:
        package = self._package(params["ModelPackageName"])
        self.cloud.store.delete(PACKAGE, package["ModelPackageArn"])
        self._changed({**package, "ModelPackageStatus": "Deleting"})
        return {}

    def _registered_before(self, group: Document, params: Params) -> str | None:
        """The version that the same ClientToken made, also if it was deleted since."""
        token = params.get("ClientToken")
        before = self.cloud.store.get(TOKEN, f"{group['ModelPackageGroupArn']} {token}") if token else None
        if before is not None and before["request"] != _request(params):
            raise ServiceError("ConflictException", f"ClientToken {token} was used with other parameters")
        return None if before is None else str(before["arn"])

    def _next_version(self, caller: Caller, group: Document, params: Params) -> Document:
        place, version = group["ModelPackageGroupArn"], group["versions"] + 1
        made = f"{place.replace(':model-package-group/', ':model-package/')}/{version}"
        package: Document = {
            "group": place,
            "ModelPackageGroupName": group["ModelPackageGroupName"],
            "ModelPackageVersion": version,
            "ModelPackageArn": made,
            "CreationTime": time.time(),
            "CreatedBy": _person(caller),
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": []},
            "ModelApprovalStatus": params.get("ModelApprovalStatus", "PendingManualApproval"),
            "CertifyForMarketplace": False,
            **_pick(params, _REGISTERED),
        }
        self.cloud.store.put(GROUP, place, {**group, "versions": version})
        self.cloud.store.put(PACKAGE, made, package)
        if token := params.get("ClientToken"):
            self.cloud.store.put(TOKEN, f"{place} {token}", {"arn": made, "request": _request(params)})
        return package

    def _package(self, name: str) -> Document:
        package = self.cloud.store.get(PACKAGE, name)
        if package is None:
            raise ServiceError("ValidationException", f"ModelPackage {name} does not exist.")
        return package

    def _changed(self, package: Document) -> None:
        detail = _pick(package, _EVENT)
        for key in ("CreationTime", "LastModifiedTime"):
            if key in detail:
                detail[key] = (
                    dt.datetime.fromtimestamp(detail[key], dt.UTC)
                    .isoformat(timespec="milliseconds")
                    .replace("+00:00", "Z")
                )
        made = package["ModelPackageArn"]
        # The registry's account hears of it, whoever's account decided.
        owner = Caller(made.split(":")[4], made.split(":")[3])
        self.cloud.emit("aws.sagemaker", "SageMaker Model Package State Change", detail, [made], owner)


def _is_policy(text: str) -> bool:
    try:
        return "Statement" in json.loads(text)
    except (ValueError, TypeError):
        return False


def _pick(document: Document, keys: tuple[str, ...]) -> Document:
    return {key: document[key] for key in keys if document.get(key) is not None}


def _person(caller: Caller) -> Params:
    return {"IamIdentity": {"Arn": caller.arn}} if caller.arn else {}


def _request(params: Params) -> str:
    return json.dumps({key: value for key, value in params.items() if key != "ClientToken"}, sort_keys=True)


def _refuse(params: Params, *more: str) -> None:
    found = [key for key in (*_REFUSED, *more) if params.get(key)]
    if found:
        raise Unsupported(f"{', '.join(found)} of a model package is not rehearsed")


def _check_metadata(metadata: dict[str, str] | None) -> None:
    """SageMaker takes 50 short entries of letters, digits, spaces and a few signs: no JSON."""
    metadata = metadata or {}
    errors = [_too_many(len(metadata))] if len(metadata) > METADATA_ENTRIES else []
    for key, value in metadata.items():
        errors += _metadata_errors(f"the key {key!r}", key, METADATA_KEY)
        errors += _metadata_errors(f"the value {value!r} of {key!r}", value, METADATA_VALUE)
    if errors:
        raise ServiceError("ValidationException", "CustomerMetadataProperties: " + "; ".join(errors))


def _too_many(count: int) -> str:
    return f"{count} entries, at most {METADATA_ENTRIES} are allowed"


def _metadata_errors(what: str, text: str, limit: int) -> list[str]:
    wrong = sorted({c for c in text if unicodedata.category(c)[0] not in "LZN" and c not in METADATA_SIGNS})
    found = [f"{what} is {len(text)} characters long, 1 to {limit} are allowed"] if not 1 <= len(text) <= limit else []
    return found + ([f"{what} has characters that are not allowed: {' '.join(wrong)}"] if wrong else [])
