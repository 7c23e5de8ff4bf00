"""CodePipeline's API: pipelines and their executions."""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any, ClassVar

from rehearsal.codepipeline import declaration, events
from rehearsal.codepipeline.actions import PRINCIPAL
from rehearsal.codepipeline.engine import ACTION, ENDED, EXECUTION, Engine
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

PIPELINE, TOKEN = "codepipeline/pipeline", "codepipeline/token"


class CodePipeline(Service):
    name = "codepipeline"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.engine = Engine(cloud)

    def start(self) -> None:
        self.engine.resume()

    def stop(self) -> None:
        self.engine.shut_down()

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        action = f"codepipeline:{operation}"
        if operation == "ListPipelines":
            return [Permission(action)]
        if operation in ("TagResource", "UntagResource", "ListTagsForResource"):
            return [Permission(action, params["resourceArn"])]
        if not self.runs(operation):
            raise Unsupported(f"codepipeline:{operation} is not rehearsed")
        declared = params.get("pipeline", {})
        where = arn("codepipeline", caller, params.get("name") or params.get("pipelineName") or declared.get("name"))
        if not declared:
            return [Permission(action, where)]
        passing = Permission("iam:PassRole", declared["roleArn"], {"iam:PassedToService": PRINCIPAL})
        tagging = [Permission("codepipeline:TagResource", where)] if params.get("tags") else []
        return [Permission(action, where), passing, *tagging]

    def resource_types(self) -> dict[str, ResourceType]:
        return {"AWS::CodePipeline::Pipeline": PipelineType(self.cloud)}

    # -- pipelines --------------------------------------------------------------------------------------

    def create_pipeline(self, caller: Caller, params: Params) -> Params:
        declared, now = {"executionMode": "SUPERSEDED", **params["pipeline"], "version": 1}, time.time()
        declaration.check(declared)
        key = _arn(caller, declared["name"])
        with self.cloud.store.transaction():
            if self.cloud.store.get(PIPELINE, key):
                raise ServiceError("PipelineNameInUseException", f"A pipeline named {declared['name']} exists already")
            self.cloud.store.put(
                PIPELINE,
                key,
                {"declaration": declared, "created": now, "updated": now, "older": {}, "tags": params.get("tags", [])},
            )
        # AWS runs a new pipeline at once; one whose variables lack a default can't start by itself.
        if all("defaultValue" in variable for variable in declared.get("variables", [])):
            self._start(caller, key, [], {"triggerType": "CreatePipeline", "triggerDetail": caller.arn})
        return {"pipeline": declared, "tags": params.get("tags", [])}

    def get_pipeline(self, caller: Caller, params: Params) -> Params:
        pipeline = self._pipeline(caller, params["name"])
        declared = pipeline["declaration"]
        if params.get("version", declared["version"]) != declared["version"]:
            declared = pipeline["older"].get(str(params["version"]))
            if declared is None:
                raise ServiceError("PipelineVersionNotFoundException", f"there is no version {params['version']}")
        return {
            "pipeline": declared,
            "metadata": {
                "pipelineArn": _arn(caller, params["name"]),
                "created": pipeline["created"],
                "updated": pipeline["updated"],
            },
        }

    def update_pipeline(self, caller: Caller, params: Params) -> Params:
        declared = {"executionMode": "SUPERSEDED", **params["pipeline"]}
        self._pipeline(caller, declared["name"])
        declaration.check(declared)

        def change(pipeline: Params) -> None:
            old = pipeline["declaration"]
            declared["version"] = old["version"] + 1
            pipeline["older"][str(old["version"])] = old
            pipeline.update(declaration=declared, updated=time.time())

        self.cloud.store.update(PIPELINE, _arn(caller, declared["name"]), change)
        return {"pipeline": declared}

    def delete_pipeline(self, caller: Caller, params: Params) -> None:
        key = _arn(caller, params["name"])
        self.cloud.store.delete(PIPELINE, key)
        for execution, _ in self._executions(key):
            self.cloud.store.delete(EXECUTION, execution)
        for action, document in self.cloud.store.list(ACTION):
            if document["execution"].rpartition("/")[0] == key:
                self.cloud.store.delete(ACTION, action)
        self.engine.wake()

    def list_pipelines(self, caller: Caller, params: Params) -> Params:
        own = [p for key, p in self.cloud.store.list(PIPELINE) if key.startswith(_arn(caller, ""))]
        page, token = _page(own, params, 1000)
        return {
            "pipelines": [
                {
                    "name": p["declaration"]["name"],
                    "version": p["declaration"]["version"],
                    "pipelineType": "V2",
                    "executionMode": p["declaration"]["executionMode"],
                    "created": p["created"],
                    "updated": p["updated"],
                }
                for p in page
            ],
            "nextToken": token,
        }

    def tag_resource(self, caller: Caller, params: Params) -> None:
        new = {tag["key"] for tag in params["tags"]}
        self._tagged(params, lambda tags: [t for t in tags if t["key"] not in new] + params["tags"])

    def untag_resource(self, caller: Caller, params: Params) -> None:
        self._tagged(params, lambda tags: [t for t in tags if t["key"] not in params["tagKeys"]])

    def list_tags_for_resource(self, caller: Caller, params: Params) -> Params:
        return {"tags": self._tagged(params, lambda tags: tags)}

    def _tagged(self, params: Params, change: Any) -> list[Params]:
        try:
            return list(
                self.cloud.store.update(PIPELINE, params["resourceArn"], lambda p: p.update(tags=change(p["tags"])))[
                    "tags"
                ]
            )
        except KeyError:
            raise ServiceError("ResourceNotFoundException", f"there is no {params['resourceArn']}") from None

    # -- executions -------------------------------------------------------------------------------------

    def start_pipeline_execution(self, caller: Caller, params: Params) -> Params:
        if params.get("sourceRevisions"):
            raise Unsupported("StartPipelineExecution: sourceRevisions is not rehearsed; the branch's head is built")
        self._pipeline(caller, params["name"])
        trigger = {"triggerType": "StartPipelineExecution", "triggerDetail": caller.arn}
        started = self._start(
            caller, _arn(caller, params["name"]), params.get("variables", []), trigger, params.get("clientRequestToken")
        )
        return {"pipelineExecutionId": started}

    def _start(self, caller: Caller, key: str, given: list[Params], trigger: Params, token: str | None = None) -> str:
        with self.cloud.store.transaction():
            if token and (earlier := self.cloud.store.get(TOKEN, f"{key}/{token}")):
                return str(earlier["execution"])
            pipeline, now = self.cloud.store.get(PIPELINE, key), time.time()
            assert pipeline is not None
            declared, execution_id = pipeline["declaration"], str(uuid.uuid4())
            execution = {
                "id": execution_id,
                "pipeline": key,
                "number": self.cloud.store.next_number(f"execution {key}"),
                "version": declared["version"],
                "declaration": declared,
                "status": "InProgress",
                "started": now,
                "updated": now,
                "variables": declaration.variables(declared, given),
                "trigger": trigger,
                "artifacts": {},
                "namespaces": {},
                "revisions": [],
                "stages": {},
                "entered": {},
                "waits": None,
                "in": None,
                "summary": None,
            }
            self.cloud.store.put(EXECUTION, f"{key}/{execution_id}", execution)
            if token:
                self.cloud.store.put(TOKEN, f"{key}/{token}", {"execution": execution_id})
        events.pipeline(self.cloud, caller, execution, "InProgress")
        self.engine.launch(f"{key}/{execution_id}")
        return execution_id

    def stop_pipeline_execution(self, caller: Caller, params: Params) -> Params:
        key, execution = self._execution(caller, params)
        if execution["status"] in ENDED:
            raise ServiceError("PipelineExecutionNotStoppableException", f"it is {execution['status']}")
        if execution["status"] == "Stopping" and (execution.get("abandon") or not params.get("abandon")):
            raise ServiceError("DuplicatedStopRequestException", "it is being stopped already")
        changes = {"status": "Stopping", "abandon": params.get("abandon", False), "stop": params.get("reason")}
        execution = self.cloud.store.update(EXECUTION, key, lambda d: d.update(changes, updated=time.time()))
        events.pipeline(self.cloud, caller, execution, "Stopping")
        self.engine.wake()
        return {"pipelineExecutionId": execution["id"]}

    def get_pipeline_execution(self, caller: Caller, params: Params) -> Params:
        _, execution = self._execution(caller, params)
        revisions = [
            {"name": r["actionName"], "revisionId": r["revisionId"], "revisionSummary": r["revisionSummary"]}
            for r in execution["revisions"]
        ]
        return {
            "pipelineExecution": {
                "pipelineName": params["pipelineName"],
                "pipelineVersion": execution["version"],
                "pipelineExecutionId": execution["id"],
                "status": execution["status"],
                "trigger": execution["trigger"],
                "statusSummary": execution["summary"],
                "artifactRevisions": revisions,
                "executionType": "STANDARD",
                "executionMode": "SUPERSEDED",
                "variables": [{"name": k, "resolvedValue": v} for k, v in execution["variables"].items()],
            }
        }

    def list_pipeline_executions(self, caller: Caller, params: Params) -> Params:
        self._pipeline(caller, params["pipelineName"])
        rows = [e for _, e in self._executions(_arn(caller, params["pipelineName"]))][::-1]
        if stage := params.get("filter", {}).get("succeededInStage", {}).get("stageName"):
            rows = [e for e in rows if e["stages"].get(stage) == "Succeeded"]
        page, token = _page(rows, params, 100)
        return {"pipelineExecutionSummaries": [_summary(e) for e in page], "nextToken": token}

    def list_action_executions(self, caller: Caller, params: Params) -> Params:
        self._pipeline(caller, params["pipelineName"])
        key, chosen = _arn(caller, params["pipelineName"]), params.get("filter", {})
        wanted = chosen.get("pipelineExecutionId") or chosen.get("latestInPipelineExecution", {}).get(
            "pipelineExecutionId"
        )
        rows = [
            d
            for _, d in self.cloud.store.list(ACTION)
            if d["execution"].rpartition("/")[0] == key and wanted in (None, d["execution"].rpartition("/")[2])
        ]
        page, token = _page(rows[::-1], params, 100)
        return {"actionExecutionDetails": [_details(d) for d in page], "nextToken": token}

    def get_pipeline_state(self, caller: Caller, params: Params) -> Params:
        pipeline, key = self._pipeline(caller, params["name"]), _arn(caller, params["name"])
        executions = [e for _, e in self._executions(key)]
        actions = [d for _, d in self.cloud.store.list(ACTION) if d["execution"].rpartition("/")[0] == key]
        declared = pipeline["declaration"]
        return {
            "pipelineName": params["name"],
            "pipelineVersion": declared["version"],
            "created": pipeline["created"],
            "updated": pipeline["updated"],
            "stageStates": [_stage_state(stage, executions, actions) for stage in declared["stages"]],
        }

    def _pipeline(self, caller: Caller, name: str) -> Params:
        pipeline = self.cloud.store.get(PIPELINE, _arn(caller, name))
        if pipeline is None:
            raise ServiceError(
                "PipelineNotFoundException", f"Account '{caller.account}' does not have a pipeline with name '{name}'"
            )
        return pipeline

    def _execution(self, caller: Caller, params: Params) -> tuple[str, Params]:
        self._pipeline(caller, params["pipelineName"])
        key = f"{_arn(caller, params['pipelineName'])}/{params['pipelineExecutionId']}"
        execution = self.cloud.store.get(EXECUTION, key)
        if execution is None:
            raise ServiceError("PipelineExecutionNotFoundException", f"there is no {params['pipelineExecutionId']}")
        return key, execution

    def _executions(self, pipeline: str) -> list[tuple[str, Params]]:
        return [(k, e) for k, e in self.cloud.store.list(EXECUTION) if e["pipeline"] == pipeline]


class PipelineType(ResourceType):
    """AWS::CodePipeline::Pipeline; Ref is the pipeline's name."""

    attributes: ClassVar[frozenset[str]] = frozenset({"Version"})
    replacement: ClassVar[frozenset[str]] = frozenset({"Name", "PipelineType"})

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        name = properties.get("Name") or f"{stack.name}-{stack.logical_id}-{uuid.uuid4().hex[:12]}"
        made = self._client(stack).create_pipeline(
            pipeline=_declared(properties, name, stack), tags=_tags(properties, stack)
        )["pipeline"]
        return Provisioned(name, {"Version": str(made["version"])})

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        client = self._client(stack)
        made = client.update_pipeline(pipeline=_declared(new, physical_id, stack))["pipeline"]
        resource = arn("codepipeline", stack.caller, physical_id)
        present, wanted = client.list_tags_for_resource(resourceArn=resource)["tags"], _tags(new, stack)
        if gone := sorted({t["key"] for t in present} - {t["key"] for t in wanted}):
            client.untag_resource(resourceArn=resource, tagKeys=gone)
        if wanted:
            client.tag_resource(resourceArn=resource, tags=wanted)
        if str(new.get("RestartExecutionOnUpdate", "false")).lower() == "true":
            client.start_pipeline_execution(name=physical_id)
        return Provisioned(physical_id, {"Version": str(made["version"])})

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        self._client(stack).delete_pipeline(name=physical_id)

    def _client(self, stack: Stack) -> Any:
        by = "cloudformation.amazonaws.com" if stack.role else ""
        return self.cloud.client(
            "codepipeline", role=stack.role, by=by, account=stack.caller.account, region=stack.caller.region
        )


def _declared(properties: Params, name: str, stack: Stack) -> Params:
    plain = {k: v for k, v in properties.items() if k not in ("Name", "Tags", "RestartExecutionOnUpdate")}
    if plain.pop("DisableInboundStageTransitions", None):
        raise Unsupported(f"{stack.logical_id}: DisableInboundStageTransitions is not rehearsed")
    if plain.get("ArtifactStores"):
        raise Unsupported(f"{stack.logical_id}: ArtifactStores is not rehearsed")
    shape = model("codepipeline").shape_for("PipelineDeclaration")
    return {**to_api(plain, shape, stack.logical_id), "name": name}


def _tags(properties: Params, stack: Stack) -> list[Params]:
    tags = {**stack.tags, **{tag["Key"]: tag["Value"] for tag in properties.get("Tags") or []}}
    return [{"key": key, "value": value} for key, value in tags.items()]


def _arn(caller: Caller, name: str) -> str:
    return arn("codepipeline", caller, name)


def _page(rows: list[Any], params: Params, most: int) -> tuple[list[Any], str | None]:
    size = min(params.get("maxResults") or most, most)
    try:
        start = int(base64.b64decode(params["nextToken"])) if params.get("nextToken") else 0
    except ValueError:
        raise ServiceError("InvalidNextTokenException", "the token is not one of ours") from None
    following = base64.b64encode(str(start + size).encode()).decode() if start + size < len(rows) else None
    return rows[start : start + size], following


def _summary(execution: Params) -> Params:
    summary = {
        "pipelineExecutionId": execution["id"],
        "status": execution["status"],
        "statusSummary": execution["summary"],
        "startTime": execution["started"],
        "lastUpdateTime": execution["updated"],
        "sourceRevisions": execution["revisions"],
        "trigger": execution["trigger"],
        "executionMode": "SUPERSEDED",
        "executionType": "STANDARD",
    }
    if execution.get("stop"):
        summary["stopTrigger"] = {"reason": execution["stop"]}
    return summary


def _details(document: Params) -> Params:
    declared = document["declared"]
    result = {
        "externalExecutionId": document["external"],
        "externalExecutionSummary": document.get("summary"),
        "errorDetails": document.get("error"),
    }
    return {
        "pipelineExecutionId": document["execution"].rpartition("/")[2],
        "actionExecutionId": document["id"],
        "pipelineVersion": document["version"],
        "stageName": document["stage"],
        "actionName": document["action"],
        "startTime": document["started"],
        "lastUpdateTime": document["updated"],
        "status": document["status"],
        "input": {
            "actionTypeId": declared["actionTypeId"],
            "configuration": declared.get("configuration", {}),
            "resolvedConfiguration": document.get("resolved"),
            "roleArn": declared.get("roleArn"),
            "inputArtifacts": document["inputs"],
            "namespace": declared.get("namespace"),
        },
        "output": {
            "outputArtifacts": document.get("outputs", []),
            "outputVariables": document.get("variables", {}),
            "executionResult": {k: v for k, v in result.items() if v},
        },
    }


def _stage_state(stage: Params, executions: list[Params], actions: list[Params]) -> Params:
    name = stage["name"]
    entered = [e for e in executions if name in e["entered"]]
    waiting = [{"pipelineExecutionId": e["id"], "status": "InProgress"} for e in executions if e["waits"] == name]
    state: Params = {
        "stageName": name,
        "inboundTransitionState": {"enabled": True},
        "actionStates": [
            _action_state(action, [d for d in actions if (d["stage"], d["action"]) == (name, action["name"])])
            for action in stage["actions"]
        ],
    }
    if waiting:
        state.update(inboundExecution=waiting[-1], inboundExecutions=waiting)
    if entered:
        latest = max(entered, key=lambda e: e["entered"][name])
        state["latestExecution"] = {"pipelineExecutionId": latest["id"], "status": latest["stages"][name]}
    return state


def _action_state(action: Params, documents: list[Params]) -> Params:
    if not documents:
        return {"actionName": action["name"]}
    last = documents[-1]
    latest = {
        "actionExecutionId": last["id"],
        "status": last["status"],
        "summary": last.get("summary"),
        "lastStatusChange": last["updated"],
        "externalExecutionId": last["external"],
        "errorDetails": last.get("error"),
    }
    return {"actionName": action["name"], "latestExecution": {k: v for k, v in latest.items() if v}}
