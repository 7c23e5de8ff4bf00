"""Where the model code comes from: one repository or archive, which every model's pipeline reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from config.section import Section

_CONNECTION = r"^arn:aws[a-z-]*:(codeconnections|codestar-connections):[a-z0-9-]+:[0-9]{12}:connection/[0-9a-f-]{36}$"
_REPOSITORY = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+$"


class CodeCommitSource(Section):
    """A CodeCommit repository, which the deployment makes."""

    type: Literal["codecommit"] = "codecommit"


class ConnectionSource(Section):
    """A repository at GitHub, GitLab or Bitbucket, through a connection that somebody has authorized."""

    type: Literal["connection"]
    connection_arn: Annotated[str, StringConstraints(pattern=_CONNECTION)]
    repository: Annotated[str, StringConstraints(pattern=_REPOSITORY, max_length=255)]
    """`owner/name`."""


class BundleSource(Section):
    """A zip archive in a bucket, which the deployment makes, where there is no Git host."""

    type: Literal["s3"]


Source = Annotated[CodeCommitSource | ConnectionSource | BundleSource, Field(discriminator="type")]
