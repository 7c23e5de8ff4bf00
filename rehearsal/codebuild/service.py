"""CodeBuild's API: projects and builds."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any, ClassVar

from rehearsal.codebuild.build import KIND, PRINCIPAL, Build
from rehearsal.properties import to_api
from rehearsal.service import (
    Caller,
    Cloud,
    Params,
    Permission,
    Provisioned,
    ResourceType,
    Service,
    ServiceError,
    Stack,
    Unsupported,
    arn,
    model,
)

PROJECT = "codebuild/project"
LOST = "lost when the rehearsal stopped"
IMAGES = (
    "aws/codebuild/amazonlinux-x86_64-standard:5.0",
    "aws/codebuild/amazonlinux2-x86_64-standard:5.0",
    "aws/codebuild/standard:7.0",
)
"""Images that hold Python 3.11, the AWS CLI and bash; the environment `codebuild` stands in for them."""
_HIDDEN = ("account", "region", "token", "wanted", "wantedToo")
_REFUSED = (
    "secondarySources",
    "secondaryArtifacts",
    "vpcConfig",
    "fileSystemLocations",
    "buildBatchConfig",
    "badgeEnabled",
    "concurrentBuildLimit",
    "autoRetryLimit",
    "secondarySourceVersions",
)
_OVERRIDES = {
    "environmentVariablesOverride",
    "buildspecOverride",
    "timeoutInMinutesOverride",
    "idempotencyToken",
    "artifactsOverride",
    "secondaryArtifactsOverride",
    "encryptionKeyOverride",
    "sourceVersion",
    "projectName",
    "serviceRoleOverride",
}


class CodeBuild(Service):
    name = "codebuild"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._running: dict[str, tuple[Build, threading.Thread]] = {}
        self._starting = threading.Lock()

    def start(self) -> None:
        """A build's container does not outlive the process: say so."""
        for build_id, document in self.cloud.store.list(KIND):
            if not document["buildComplete"]:
                self._changed(self.cloud.store.update(KIND, build_id, _lose))

    def stop(self) -> None:
        running = list(self._running.values())
        for build, _ in running:
            build.abandon()
        for _, thread in running:
            thread.join(10)

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        action = f"codebuild:{operation}"
        if operation in ("ListProjects", "ListBuilds"):
            return [Permission(action)]
        if operation in ("BatchGetBuilds", "BatchGetProjects"):
            names = {name.rpartition("project/")[2].partition(":")[0] for name in params.get("ids", [])}
            names |= {name.rpartition("project/")[2] for name in params.get("names", [])}
            return [Permission(action, _arn(caller, name)) for name in sorted(names)]
        if not self.runs(operation):
            raise Unsupported(f"codebuild:{operation} is not rehearsed")
        name = params.get("projectName") or params.get("name") or params.get("id", "").partition(":")[0]
        role = params.get("serviceRole") or params.get("serviceRoleOverride")
        passing = [Permission("iam:PassRole", role, {"iam:PassedToService": PRINCIPAL})] if role else []
        return [Permission(action, _arn(caller, name)), *passing]

    def resource_types(self) -> dict[str, ResourceType]:
        return {"AWS::CodeBuild::Project": ProjectType(self.cloud)}

    # -- projects ---------------------------------------------------------------------------------------

    def create_project(self, caller: Caller, params: Params) -> Params:
        _check_project(params)
        now = time.time()
        project = {
            "timeoutInMinutes": 60,
            "queuedTimeoutInMinutes": 480,
            **params,
            "tags": params.get("tags", []),
            "arn": _arn(caller, params["name"]),
            "created": now,
            "lastModified": now,
        }
        with self.cloud.store.transaction():
            if self.cloud.store.get(PROJECT, project["arn"]):
                raise ServiceError("ResourceAlreadyExistsException", f"Project already exists: {project['arn']}")
            self.cloud.store.put(PROJECT, project["arn"], project)
        return {"project": project}

    def update_project(self, caller: Caller, params: Params) -> Params:
        project = {**self._project(caller, params["name"]), **params, "lastModified": time.time()}
        _check_project(project)
        self.cloud.store.put(PROJECT, project["arn"], project)
        return {"project": project}

    def delete_project(self, caller: Caller, params: Params) -> None:
        self.cloud.store.delete(PROJECT, _arn(caller, params["name"].rpartition("project/")[2]))

    def list_projects(self, caller: Caller, params: Params) -> Params:
        own = _arn(caller, "")
        return {"projects": sorted(d["name"] for key, d in self.cloud.store.list(PROJECT) if key.startswith(own))}

    def batch_get_projects(self, caller: Caller, params: Params) -> Params:
        found = {
            name: self.cloud.store.get(PROJECT, _arn(caller, name.rpartition("project/")[2]))
            for name in params["names"]
        }
        return {
            "projects": [project for project in found.values() if project],
            "projectsNotFound": [name for name, project in found.items() if not project],
        }

    # -- builds -----------------------------------------------------------------------------------------

    def start_build(self, caller: Caller, params: Params) -> Params:
        project = self._project(caller, params["projectName"])
        unknown = sorted(set(params) - _OVERRIDES)
        if unknown:
            raise Unsupported(f"StartBuild: {', '.join(unknown)} is not rehearsed")
        with self._starting:
            for _, earlier in self.cloud.store.list(KIND) if params.get("idempotencyToken") else ():
                if (earlier["token"], earlier["projectName"]) == (params["idempotencyToken"], project["name"]):
                    return {"build": _public(earlier)}
            document = self._document(caller, params, project)
            self.cloud.store.put(KIND, document["id"], document)
            self._launch(document)
        return {"build": _public(document)}

    def stop_build(self, caller: Caller, params: Params) -> Params:
        document = self._build(params["id"])
        running = self._running.get(document["id"])
        if running:
            running[0].stop()
            running[1].join(20)
        return {"build": _public(self._build(params["id"]))}

    def batch_get_builds(self, caller: Caller, params: Params) -> Params:
        found = {i: self.cloud.store.get(KIND, i.rpartition("build/")[2]) for i in params["ids"]}
        return {
            "builds": [_public(d) for d in found.values() if d],
            "buildsNotFound": [i for i, d in found.items() if not d],
        }

    def list_builds_for_project(self, caller: Caller, params: Params) -> Params:
        project = self._project(caller, params["projectName"])
        own = [(i, d) for i, d in self.cloud.store.list(KIND) if d["arn"].startswith(_builds(project))]
        return {"ids": [i for i, _ in _ordered(own, params)]}

    def list_builds(self, caller: Caller, params: Params) -> Params:
        own = [(i, d) for i, d in self.cloud.store.list(KIND) if d["account"] == caller.account]
        return {"ids": [i for i, _ in _ordered(own, params)]}

    def _document(self, caller: Caller, params: Params, project: Params) -> Params:
        source, now, unique = project["source"], time.time(), str(uuid.uuid4())
        version = params.get("sourceVersion", "")
        if source["type"] == "CODEPIPELINE" and not version.startswith("arn:aws:s3:::"):
            raise ServiceError("InvalidInputException", "a project with source CODEPIPELINE is built by a pipeline")
        if "buildspecOverride" in params:
            source = {**source, "buildspec": params["buildspecOverride"]}
        cloudwatch = project.get("logsConfig", {}).get("cloudWatchLogs", {"status": "ENABLED"})
        group = cloudwatch.get("groupName") or f"/aws/codebuild/{project['name']}"
        stream = "/".join(part for part in (cloudwatch.get("streamName"), unique) if part)
        log_arn = arn("logs", caller, f"log-group:{group}:log-stream:{stream}")
        phase = {"phaseStatus": "SUCCEEDED", "startTime": now, "endTime": now, "durationInSeconds": 0}
        wanted = params.get("artifactsOverride") or project["artifacts"]
        return {
            "id": f"{project['name']}:{unique}",
            "arn": f"{_builds(project)}{unique}",
            "startTime": now,
            "buildNumber": self.cloud.store.next_number(f"build {project['arn']}"),
            "currentPhase": "QUEUED",
            "buildStatus": "IN_PROGRESS",
            "buildComplete": False,
            "projectName": project["name"],
            "source": source,
            "phases": [{**phase, "phaseType": "SUBMITTED"}, {**phase, "phaseType": "QUEUED"}],
            "environment": _environment(project, params),
            "timeoutInMinutes": params.get("timeoutInMinutesOverride", project["timeoutInMinutes"]),
            "queuedTimeoutInMinutes": project["queuedTimeoutInMinutes"],
            "serviceRole": params.get("serviceRoleOverride", project["serviceRole"]),
            "encryptionKey": params.get("encryptionKeyOverride") or project.get("encryptionKey"),
            "sourceVersion": version,
            "initiator": _initiator(caller, wanted),
            "account": caller.account,
            "logs": {
                "groupName": group,
                "streamName": stream,
                "cloudWatchLogs": cloudwatch,
                "cloudWatchLogsArn": log_arn,
            },
            "region": caller.region,
            "token": params.get("idempotencyToken"),
            "wanted": wanted,
            "wantedToo": params.get("secondaryArtifactsOverride", []),
            "exportedEnvironmentVariables": [],
        }

    def _launch(self, document: Params) -> None:
        build_id = document["id"]

        def run() -> None:
            try:
                build.run()
            finally:
                self._running.pop(build_id, None)

        try:
            build = Build(self.cloud, build_id, self._changed)
        except ServiceError as error:  # the role can't be assumed: the build fails before it starts
            why = error.message
            self._changed(self.cloud.store.update(KIND, build_id, lambda d: _end(d, "FAILED", "ACCESS_DENIED", why)))
            return
        thread = threading.Thread(target=run, name=f"build {build_id}", daemon=True)
        self._running[build_id] = build, thread
        self._changed(document)
        thread.start()

    def _changed(self, document: Params) -> None:
        """Emit the build's status when it begins and when it has ended."""
        if not document["buildComplete"] and document["currentPhase"] != "QUEUED":
            return
        detail = {
            "build-status": document["buildStatus"],
            "project-name": document["projectName"],
            "build-id": document["arn"],
            "current-phase": document["currentPhase"],
            "current-phase-context": "[]",
            "version": "1",
            "additional-information": _information(document),
        }
        self.cloud.emit(
            "aws.codebuild",
            "CodeBuild Build State Change",
            detail,
            [document["arn"]],
            Caller(document["account"], document["region"]),
        )

    def _project(self, caller: Caller, name: str) -> Params:
        project = self.cloud.store.get(PROJECT, _arn(caller, name.rpartition("project/")[2]))
        if project is None:
            raise ServiceError("ResourceNotFoundException", f"Project cannot be found: {name}")
        return project

    def _build(self, build_id: str) -> Params:
        document = self.cloud.store.get(KIND, build_id.rpartition("build/")[2])
        if document is None:
            raise ServiceError("ResourceNotFoundException", f"Build cannot be found: {build_id}")
        return document


class ProjectType(ResourceType):
    """AWS::CodeBuild::Project; Ref is the project's name."""

    attributes: ClassVar[frozenset[str]] = frozenset({"Arn"})
    replacement: ClassVar[frozenset[str]] = frozenset({"Name"})

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        name = properties.get("Name") or f"{stack.logical_id}-{uuid.uuid4().hex[:12]}"
        made = self._client(stack).create_project(**self._wanted(properties, stack, name))["project"]
        return Provisioned(made["name"], {"Arn": made["arn"]})

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        made = self._client(stack).update_project(**self._wanted(new, stack, physical_id))["project"]
        return Provisioned(made["name"], {"Arn": made["arn"]})

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        self._client(stack).delete_project(name=physical_id)

    def _wanted(self, properties: Params, stack: Stack, name: str) -> Params:
        plain = {k: v for k, v in properties.items() if k not in ("Name", "Tags", "Visibility")}
        if properties.get("Visibility", "PRIVATE") != "PRIVATE":
            raise Unsupported(f"{stack.logical_id}: Visibility {properties['Visibility']} is not rehearsed")
        shape = model("codebuild").operation_model("CreateProject").input_shape
        assert shape is not None
        tags = {**stack.tags, **{tag["Key"]: tag["Value"] for tag in properties.get("Tags") or []}}
        listed = [{"key": key, "value": value} for key, value in tags.items()]
        return {**to_api(plain, shape, stack.logical_id), "name": name, "tags": listed}

    def _client(self, stack: Stack) -> Any:
        by = "cloudformation.amazonaws.com" if stack.role else ""
        return self.cloud.client(
            "codebuild", role=stack.role, by=by, account=stack.caller.account, region=stack.caller.region
        )


def _check_project(project: Params) -> None:
    """Refuse what a build would not do."""
    environment, where = project["environment"], f"project {project['name']}"
    for key in _REFUSED:
        if project.get(key):
            raise Unsupported(f"{where}: {key} is not rehearsed")
    if environment["image"] not in IMAGES:
        raise Unsupported(f"{where}: the image {environment['image']} is not rehearsed; there are {', '.join(IMAGES)}")
    if environment["type"] != "LINUX_CONTAINER":
        raise Unsupported(f"{where}: environment.type {environment['type']} is not rehearsed")
    for key in ("privilegedMode", "certificate", "registryCredential", "fleet", "dockerServer"):
        if environment.get(key):
            raise Unsupported(f"{where}: environment.{key} is not rehearsed")
    for key, known in (("source", ("CODEPIPELINE", "NO_SOURCE")), ("artifacts", ("CODEPIPELINE", "NO_ARTIFACTS"))):
        if project[key]["type"] not in known:
            raise Unsupported(f"{where}: {key}.type {project[key]['type']} is not rehearsed")
    if project.get("cache", {}).get("type", "NO_CACHE") != "NO_CACHE":
        raise Unsupported(f"{where}: cache.type {project['cache']['type']} is not rehearsed")
    if project.get("logsConfig", {}).get("s3Logs", {}).get("status") == "ENABLED":
        raise Unsupported(f"{where}: logsConfig.s3Logs is not rehearsed")
    _check_variables(environment.get("environmentVariables", []), where)


def _check_variables(variables: list[Params], where: str) -> None:
    for variable in variables:
        if variable.get("type") == "SECRETS_MANAGER":
            raise Unsupported(f"{where}: the variable {variable['name']} of type SECRETS_MANAGER is not rehearsed")


def _environment(project: Params, params: Params) -> Params:
    override = params.get("environmentVariablesOverride", [])
    _check_variables(override, "StartBuild")
    merged = {v["name"]: v for v in [*project["environment"].get("environmentVariables", []), *override]}
    return {**project["environment"], "environmentVariables": list(merged.values())}


def _initiator(caller: Caller, wanted: Params) -> str:
    if wanted["type"] == "CODEPIPELINE" and wanted.get("path"):
        return f"codepipeline/{wanted['path'].partition('/')[0]}"
    return caller.arn.rpartition(":")[2].removeprefix("assumed-role/")


def _arn(caller: Caller, name: str) -> str:
    return arn("codebuild", caller, f"project/{name}")


def _builds(project: Params) -> str:
    return str(project["arn"].replace(":project/", ":build/")) + ":"


def _ordered(rows: list[tuple[str, Params]], params: Params) -> list[tuple[str, Params]]:
    return rows if params.get("sortOrder") == "ASCENDING" else rows[::-1]


def _public(document: Params) -> Params:
    return {k: v for k, v in document.items() if k not in _HIDDEN and v not in (None, "")}


def _lose(document: Params) -> None:
    _end(document, "FAILED", "LOST", LOST)


def _end(document: Params, status: str, code: str, why: str) -> None:
    now, context = time.time(), [{"statusCode": code, "message": why}]
    unfinished = next((p for p in document["phases"] if "phaseStatus" not in p), None)
    if unfinished is None:
        unfinished = {"phaseType": "PROVISIONING", "startTime": now}
        document["phases"].append(unfinished)
    unfinished.update(phaseStatus=status, endTime=now, contexts=context, durationInSeconds=0)
    document["phases"].append({"phaseType": "COMPLETED", "startTime": now})
    document.update(buildStatus=status, buildComplete=True, endTime=now, currentPhase="COMPLETED")


def _information(document: Params) -> Params:
    environment, logs = document["environment"], document["logs"]
    return {
        "artifact": {"location": document.get("artifacts", {}).get("location", "")},
        "environment": {
            "image": environment["image"],
            "privileged-mode": False,
            "type": environment["type"],
            "compute-type": environment["computeType"],
            "environment-variables": [],
        },
        "timeout-in-minutes": document["timeoutInMinutes"],
        "build-complete": document["buildComplete"],
        "build-number": float(document["buildNumber"]),
        "initiator": document["initiator"],
        "build-start-time": _stamp(document["startTime"]),
        "source": {"type": document["source"]["type"]},
        "logs": {"group-name": logs["groupName"], "stream-name": logs["streamName"]},
        "phases": [_phase(phase) for phase in document["phases"]],
        "exported-environment-variables": document.get("exportedEnvironmentVariables", []),
    }


def _phase(phase: Params) -> Params:
    contexts = [f"{c['statusCode']}: {c['message']}" for c in phase.get("contexts", [])]
    told = {
        "phase-type": phase["phaseType"],
        "start-time": _stamp(phase["startTime"]),
        "phase-context": contexts,
        "phase-status": phase.get("phaseStatus"),
        "duration-in-seconds": phase.get("durationInSeconds"),
    }
    return {k: v for k, v in told.items() if v is not None}


def _stamp(seconds: float) -> str:
    """CodeBuild's events write times for people: `Sep 1, 2017 4:12:29 PM`."""
    parts = time.gmtime(seconds)
    return (
        f"{time.strftime('%b', parts)} {parts.tm_mday}, {parts.tm_year} {parts.tm_hour % 12 or 12}"
        f":{time.strftime('%M:%S %p', parts)}"
    )
