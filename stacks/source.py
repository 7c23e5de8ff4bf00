"""Where model code comes from, as one construct: what a pipeline fetches, and how a push reaches `start_retraining`.

| `source.type` | fetched from | a push is told by |
|---|---|---|
| codecommit | the repository that the deployment makes | CodeCommit's event |
| connection | GitHub, GitLab or Bitbucket | a pipeline of its own, the doorbell, which the branch starts |
| s3 | `source.zip` in a bucket that the deployment makes | S3's event |
"""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_codecommit as codecommit
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from config import Settings
from config.source import BundleSource, CodeCommitSource, ConnectionSource
from stacks.doorbell import Doorbell
from stacks.foundation_stack import FoundationStack
from stacks.names import doorbell_name
from stacks.outputs import publish
from stacks.permissions import allow, list_objects, read_objects, read_versions
from stacks.pipeline import store_of

BRANCH = "main"
BUNDLE = "source.zip"
ROUTED = "source/routed.json"
"""Among the artifacts: which push was routed last."""


class Source(Construct):
    """What all sources have in common; `provider` and `configuration` are those of the pipelines' Source action."""

    provider: str
    commit = "#{Source.CommitId}"
    """The commit, as the Source action's output variable."""
    arn: str
    """What `start_retraining` tells its own pushes from others by."""
    looked_at: bool = True
    """Whether `start_retraining` can ask what was pushed, without being told."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, foundation: FoundationStack) -> None:
        super().__init__(scope, id)
        self._settings, self._foundation = settings, foundation

    @property
    def configuration(self) -> dict[str, str]:
        """Of the Source action; `start_retraining` decides which pushes concern a model, so nothing is polled."""
        raise NotImplementedError

    @property
    def outputs(self) -> dict[str, str]:
        """What people are told at deployment."""
        raise NotImplementedError

    @property
    def environment(self) -> dict[str, str]:
        """What `start_retraining` needs to know."""
        return {"SOURCE_ARN": self.arn, "BRANCH": BRANCH,
                "ROUTED": f"{self._foundation.artifacts.bucket_name}/{ROUTED}"}  # fmt: skip

    def fetch(self) -> list[iam.PolicyStatement]:
        """What the Source action may do, besides storing what it fetched."""
        raise NotImplementedError

    def compare(self) -> list[iam.PolicyStatement]:
        """What `start_retraining` may do to learn what a push changed since the one that it routed last."""
        # Without permission to list, S3 answers for an object that is not there that it is forbidden.
        kept = self._foundation.artifacts
        return [read_objects(kept, ROUTED), allow("s3:PutObject", on=kept.arn_for_objects(ROUTED)),
                list_objects(kept, ROUTED)]  # fmt: skip

    def tell(self, function: lambda_.IFunction) -> None:
        """Have every push told to the function."""
        raise NotImplementedError

    def _rule(self, function: lambda_.IFunction, pattern: events.EventPattern, what: str) -> None:
        events.Rule(Stack.of(self), "Push", event_pattern=pattern, description=f"{what} retrains what it touches",
                    targets=[targets.LambdaFunction(function)])  # fmt: skip


class CodeCommit(Source):
    """A repository of this account."""

    provider = "CodeCommit"

    def __init__(self, scope: Construct, id: str, *, settings: Settings, foundation: FoundationStack) -> None:
        super().__init__(scope, id, settings=settings, foundation=foundation)
        # People clone it by name, so it has one. It stays under CodeCommit's own key: with ours, everybody who pushes
        # would need permissions on the key of all data.
        self.repository = codecommit.Repository(Stack.of(self), "Repository", repository_name=settings.project,
                                                description="Model code and the infrastructure it runs on",
                                                )  # fmt: skip
        self.repository.apply_removal_policy(foundation.removal)
        self.arn = self.repository.repository_arn

    @property
    def configuration(self) -> dict[str, str]:
        return {"RepositoryName": self.repository.repository_name, "BranchName": BRANCH,
                "PollForSourceChanges": "false", "OutputArtifactFormat": "CODE_ZIP"}  # fmt: skip

    @property
    def outputs(self) -> dict[str, str]:
        return {"Repository": self.repository.repository_name}

    def fetch(self) -> list[iam.PolicyStatement]:
        return [allow("codecommit:GetBranch", "codecommit:GetCommit", "codecommit:UploadArchive",
                      "codecommit:GetUploadArchiveStatus", "codecommit:CancelUploadArchive", on=self.arn)]  # fmt: skip

    def compare(self) -> list[iam.PolicyStatement]:
        return [*super().compare(), allow("codecommit:GetBranch", "codecommit:GetCommit", "codecommit:GetDifferences",
                                          "codecommit:GetFolder", on=self.arn)]  # fmt: skip

    def tell(self, function: lambda_.IFunction) -> None:
        pattern = events.EventPattern(
            source=["aws.codecommit"], detail_type=["CodeCommit Repository State Change"], resources=[self.arn],
            detail={"event": ["referenceCreated", "referenceUpdated", "referenceDeleted"], "referenceType": ["branch"],
                    "referenceName": [BRANCH]})  # fmt: skip
        self._rule(function, pattern, f"A push to {BRANCH}")


class Bundle(Source):
    """A zip in a bucket of this account, which whoever publishes puts there."""

    provider = "S3"
    commit = "#{Source.VersionId}"

    def __init__(self, scope: Construct, id: str, *, settings: Settings, foundation: FoundationStack) -> None:
        super().__init__(scope, id, settings=settings, foundation=foundation)
        self.bucket = foundation.bucket("Source", notify=True)
        # Told by the bucket's own stack: an output that only repeats another stack's is none.
        publish(foundation, {"SourceBundle": f"s3://{self.bucket.bucket_name}/{BUNDLE}"})
        self.arn = self.bucket.arn_for_objects(BUNDLE)

    @property
    def configuration(self) -> dict[str, str]:
        return {"S3Bucket": self.bucket.bucket_name, "S3ObjectKey": BUNDLE, "PollForSourceChanges": "false"}

    @property
    def outputs(self) -> dict[str, str]:
        return {}

    def fetch(self) -> list[iam.PolicyStatement]:
        return [read_versions(self.bucket, BUNDLE), allow("s3:GetBucketVersioning", on=self.bucket.bucket_arn)]

    def compare(self) -> list[iam.PolicyStatement]:
        return [*super().compare(), read_objects(self.bucket, BUNDLE), list_objects(self.bucket, BUNDLE)]

    def tell(self, function: lambda_.IFunction) -> None:
        pattern = events.EventPattern(
            source=["aws.s3"], detail_type=["Object Created"],
            detail={"bucket": {"name": [self.bucket.bucket_name]}, "object": {"key": [BUNDLE]}})  # fmt: skip
        self._rule(function, pattern, f"A new {BUNDLE}")


class Connection(Source):
    """A repository elsewhere; its host tells CodePipeline of a push, and nobody else."""

    provider = "CodeStarSourceConnection"
    looked_at = False

    def __init__(self, scope: Construct, id: str, *, settings: Settings, foundation: FoundationStack,
                 asked: ConnectionSource) -> None:  # fmt: skip
        super().__init__(scope, id, settings=settings, foundation=foundation)
        self.arn, self._asked = asked.connection_arn, asked

    @property
    def configuration(self) -> dict[str, str]:
        return {"ConnectionArn": self.arn, "FullRepositoryId": self._asked.repository, "BranchName": BRANCH,
                "OutputArtifactFormat": "CODE_ZIP", "DetectChanges": "false"}  # fmt: skip

    @property
    def outputs(self) -> dict[str, str]:
        return {"SourceRepository": self._asked.repository}

    def fetch(self) -> list[iam.PolicyStatement]:
        service = self.arn.split(":")[2]
        return [allow(f"{service}:UseConnection", on=self.arn, when={"StringEquals": {
            f"{service}:FullRepositoryId": self._asked.repository}})]  # fmt: skip

    def compare(self) -> list[iam.PolicyStatement]:
        stored = read_objects(self._foundation.pipeline_store, f"{store_of(doorbell_name(self._settings))}/*")
        return [*super().compare(), stored, allow("codepipeline:PutJobSuccessResult", on="*")]

    def tell(self, function: lambda_.IFunction) -> None:
        Doorbell(self, "Doorbell", name=doorbell_name(self._settings), branch=BRANCH, foundation=self._foundation,
                 provider=self.provider, configuration=self.configuration, fetch=self.fetch(), commit=self.commit,
                 function=function)  # fmt: skip


def source(scope: Construct, id: str, *, settings: Settings, foundation: FoundationStack) -> Source:
    """The source that the settings ask for."""
    match settings.source:
        case CodeCommitSource():
            return CodeCommit(scope, id, settings=settings, foundation=foundation)
        case BundleSource():
            return Bundle(scope, id, settings=settings, foundation=foundation)
        case ConnectionSource() as asked:
            return Connection(scope, id, settings=settings, foundation=foundation, asked=asked)
