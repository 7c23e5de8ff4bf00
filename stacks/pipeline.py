"""What CodePipelines consist of: stages, actions under a role each, and the store of their artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.foundation_stack import FoundationStack
from stacks.permissions import allow, arn, read_versions, read_with_key, role, service_role, use_key, write_objects

_Pipeline = codepipeline.CfnPipeline


class ActionRoles(Construct):
    """The pipeline's own role, and one for each of its actions, which only it may assume."""

    def __init__(self, scope: Construct, id: str, *, foundation: FoundationStack, store: str) -> None:
        super().__init__(scope, id)
        self._bucket, self._key, self._store = foundation.pipeline_store, foundation.key, store
        self.pipeline = service_role(self, "Pipeline", "codepipeline", statements=[])

    def action(self, id: str, statements: Sequence[iam.PolicyStatement]) -> iam.Role:
        """The role of one action."""
        return role(self, id, iam.ArnPrincipal(self.pipeline.role_arn), statements=statements)

    def act(self, *roles: iam.IRole) -> iam.CfnPolicy:
        """Let the pipeline take the roles; apart from its own, which each of them names in its trust."""
        assume = iam.PolicyDocument(statements=[allow("sts:AssumeRole", on=[role.role_arn for role in roles])])
        return iam.CfnPolicy(self, "Act", policy_name="Act", policy_document=assume, roles=[self.pipeline.role_name])

    def put(self) -> list[iam.PolicyStatement]:
        """Store an artifact."""
        return [write_objects(self._bucket, f"{self._store}/*"), use_key(self._key)]

    def get(self) -> list[iam.PolicyStatement]:
        """Get an artifact."""
        return [read_versions(self._bucket, f"{self._store}/*"), read_with_key(self._key)]


class PipelineRoles(ActionRoles):
    """The roles of a model's pipeline."""

    def __init__(self, scope: Construct, id: str, *, foundation: FoundationStack, store: str,
                 fetch: Sequence[iam.PolicyStatement], build: str, state_machine: str,
                 state_machine_name: str) -> None:  # fmt: skip
        super().__init__(scope, id, foundation=foundation, store=store)
        self.source = self.action("Source", [*fetch, *self.put()])
        self.verify = self.action(
            "Verify", [allow("codebuild:StartBuild", "codebuild:BatchGetBuilds", "codebuild:StopBuild", on=build)]
        )
        executions = arn(self, "states", f"execution:{state_machine_name}:*")
        self.retrain = self.action("Retrain", [
            allow("states:StartExecution", "states:DescribeStateMachine", on=state_machine),
            allow("states:DescribeExecution", on=executions), *self.get()])  # fmt: skip
        self.acting = self.act(self.source, self.verify, self.retrain)


def stage(name: str, *actions: _Pipeline.ActionDeclarationProperty) -> _Pipeline.StageDeclarationProperty:
    """A stage of these actions."""
    return _Pipeline.StageDeclarationProperty(name=name, actions=list(actions))


def action(name: str, category: str, provider: str, configuration: Mapping[str, str], acting: iam.IRole, *,
           inputs: str = "", outputs: str = "",
           namespace: str | None = None) -> _Pipeline.ActionDeclarationProperty:  # fmt: skip
    """An action of AWS's own, under its role."""
    return _Pipeline.ActionDeclarationProperty(
        name=name, configuration=dict(configuration), role_arn=acting.role_arn, namespace=namespace, run_order=1,
        action_type_id=_Pipeline.ActionTypeIdProperty(category=category, owner="AWS", provider=provider, version="1"),
        input_artifacts=[_Pipeline.InputArtifactProperty(name=inputs)] if inputs else None,
        output_artifacts=[_Pipeline.OutputArtifactProperty(name=outputs)] if outputs else None)  # fmt: skip


def artifact_store(foundation: FoundationStack) -> _Pipeline.ArtifactStoreProperty:
    """The bucket of all pipelines' artifacts, under training's key."""
    return _Pipeline.ArtifactStoreProperty(
        type="S3", location=foundation.pipeline_store.bucket_name,
        encryption_key=_Pipeline.EncryptionKeyProperty(type="KMS", id=foundation.key.key_arn))  # fmt: skip


def store_of(pipeline: str) -> str:
    """The prefix in it: CodePipeline keeps artifacts under the first 20 characters of the pipeline's name."""
    return pipeline[:20]
