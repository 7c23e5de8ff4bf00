"""The bootstrap stack that the default stack synthesizer expects, with the names and ids of `cdk bootstrap`."""

from __future__ import annotations

from typing import Any

TOOLKIT = "CDKToolkit"
QUALIFIER = "hnb659fds"
VERSION = "30"
VERSION_PARAMETER = f"/cdk-bootstrap/{QUALIFIER}/version"
_BUCKET = {"Fn::Sub": f"cdk-{QUALIFIER}-assets-${{AWS::AccountId}}-${{AWS::Region}}"}


def template() -> dict[str, Any]:
    """Staging bucket, version parameter and the execution role; a later `cdk bootstrap` updates this stack."""
    return {
        "Description": "What the CDK's default stack synthesizer expects, as far as the rehearsal needs it",
        "Resources": {
            "StagingBucket": {
                "Type": "AWS::S3::Bucket",
                "Properties": {
                    "BucketName": _BUCKET,
                    "VersioningConfiguration": {"Status": "Enabled"},
                    "PublicAccessBlockConfiguration": {
                        "BlockPublicAcls": True,
                        "BlockPublicPolicy": True,
                        "IgnorePublicAcls": True,
                        "RestrictPublicBuckets": True,
                    },
                },
            },
            "CdkBootstrapVersion": {
                "Type": "AWS::SSM::Parameter",
                "Properties": {"Type": "String", "Name": VERSION_PARAMETER, "Value": VERSION},
            },
            "CloudFormationExecutionRole": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "RoleName": {"Fn::Sub": f"cdk-{QUALIFIER}-cfn-exec-role-${{AWS::AccountId}}-${{AWS::Region}}"},
                    "AssumeRolePolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Action": "sts:AssumeRole",
                                "Principal": {"Service": "cloudformation.amazonaws.com"},
                            }
                        ],
                    },
                    "ManagedPolicyArns": [{"Fn::Sub": "arn:${AWS::Partition}:iam::aws:policy/AdministratorAccess"}],
                },
            },
        },
        "Outputs": {
            "BucketName": {"Value": {"Ref": "StagingBucket"}},
            "BootstrapVersion": {"Value": {"Fn::GetAtt": ["CdkBootstrapVersion", "Value"]}},
        },
    }
