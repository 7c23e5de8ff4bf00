"""How a push to a host outside AWS reaches `start_retraining`: its host tells CodePipeline, and nobody else.

The doorbell is a pipeline that the branch starts: it fetches the commit and hands it to the function, which decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.foundation_stack import FoundationStack
from stacks.permissions import allow
from stacks.pipeline import ActionRoles, action, artifact_store, stage, store_of

_Pipeline = codepipeline.CfnPipeline


class Doorbell(Construct):
    """A newer push supersedes one that waits: the function compares with what was last routed, so nothing is lost."""

    def __init__(self, scope: Construct, id: str, *, name: str, branch: str, foundation: FoundationStack,
                 provider: str, configuration: Mapping[str, str], fetch: Sequence[iam.PolicyStatement], commit: str,
                 function: lambda_.IFunction) -> None:  # fmt: skip
        super().__init__(scope, id)
        roles = ActionRoles(self, "Roles", foundation=foundation, store=store_of(name))
        fetching = roles.action("Source", [*fetch, *roles.put()])
        telling = roles.action("Route", [allow("lambda:InvokeFunction", on=function.function_arn), *roles.get()])
        source = action("Source", "Source", provider, configuration, fetching,
                        outputs="Source", namespace="Source")  # fmt: skip
        tell = action("Route", "Invoke", "Lambda", {"FunctionName": function.function_name,
                                                    "UserParameters": commit}, telling, inputs="Source")  # fmt: skip
        self.pipeline = _Pipeline(
            self, "Pipeline", name=name, pipeline_type="V2", execution_mode="SUPERSEDED",
            role_arn=roles.pipeline.role_arn, restart_execution_on_update=False,
            stages=[stage("Source", source), stage("Route", tell)], triggers=[_on_push(branch)],
            artifact_store=artifact_store(foundation))  # fmt: skip
        self.pipeline.add_resource_dependency(roles.act(fetching, telling))


def _on_push(branch: str) -> _Pipeline.PipelineTriggerDeclarationProperty:
    branches = _Pipeline.GitBranchFilterCriteriaProperty(includes=[branch])
    push = _Pipeline.GitPushFilterProperty(branches=branches)
    return _Pipeline.PipelineTriggerDeclarationProperty(
        provider_type="CodeStarSourceConnection",
        git_configuration=_Pipeline.GitConfigurationProperty(source_action_name="Source", push=[push]))  # fmt: skip
