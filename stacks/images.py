"""Prebuilt SageMaker images: which account's registry holds them in which region."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import CfnMapping, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from contract import Model
from stacks.permissions import allow

REGISTRIES = {
    "af-south-1": "510948584623",
    "ap-east-1": "651117190479",
    "ap-northeast-1": "354813040037",
    "ap-northeast-2": "366743142698",
    "ap-northeast-3": "867004704886",
    "ap-south-1": "720646828776",
    "ap-south-2": "628508329040",
    "ap-southeast-1": "121021644041",
    "ap-southeast-2": "783357654285",
    "ap-southeast-3": "951798379941",
    "ap-southeast-4": "106583098589",
    "ca-central-1": "341280168497",
    "ca-west-1": "190319476487",
    "cn-north-1": "450853457545",
    "cn-northwest-1": "451049120500",
    "eu-central-1": "492215442770",
    "eu-central-2": "680994064768",
    "eu-north-1": "662702820516",
    "eu-south-1": "978288397137",
    "eu-south-2": "104374241257",
    "eu-west-1": "141502667606",
    "eu-west-2": "764974769150",
    "eu-west-3": "659782779980",
    "il-central-1": "898809789911",
    "me-central-1": "272398656194",
    "me-south-1": "801668240914",
    "sa-east-1": "737474898029",
    "us-east-1": "683313688378",
    "us-east-2": "257758044811",
    "us-gov-east-1": "237065988967",
    "us-gov-west-1": "414596584902",
    "us-iso-east-1": "833128469047",
    "us-isob-east-1": "281123927165",
    "us-isof-east-1": "108575199400",
    "us-isof-south-1": "124985052026",
    "us-west-1": "746614075791",
    "us-west-2": "246618743249",
}
"""Region to account of the registries of sagemaker-xgboost, as SageMaker's SDK lists them for 3.2-0."""


class PrebuiltImage(Construct):
    """An image of AWS's in the stack's region, which only CloudFormation knows."""

    def __init__(self, scope: Construct, id: str, *, registries: Mapping[str, str], repository: str,
                 tag: str = "") -> None:  # fmt: skip
        super().__init__(scope, id)
        self._name, self._tag = repository, tag
        mapping = {region: {"Account": account} for region, account in registries.items()}
        self._registries = CfnMapping(self, "Registries", mapping=mapping, lazy=True)

    @property
    def account(self) -> str:
        return self._registries.find_in_map(Stack.of(self).region, "Account")

    @property
    def uri(self) -> str:
        stack = Stack.of(self)
        name = f"{self.account}.dkr.ecr.{stack.region}.{stack.url_suffix}/{self._name}"
        return f"{name}:{self._tag}" if self._tag else name

    @property
    def repository_arn(self) -> str:
        stack = Stack.of(self)
        return f"arn:{stack.partition}:ecr:{stack.region}:{self.account}:repository/{self._name}"

    @property
    def pull(self) -> list[iam.PolicyStatement]:
        """Pull this image; the registry's token can't be limited to a repository."""
        actions = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
        return [allow(*actions, on=self.repository_arn), allow("ecr:GetAuthorizationToken", on="*")]


class FrameworkImage(PrebuiltImage):
    """The image of a model's framework."""

    def __init__(self, scope: Construct, id: str, *, model: Model) -> None:
        image = model.framework.image
        super().__init__(scope, id, registries=REGISTRIES, repository=image.repository, tag=image.tag)
