"""An independent IAM evaluator decides every audited call again, from the deployed policies: do the two agree?"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehearsal import npm_tools
from rehearsal.landscape import ClientOf
from rehearsal.policies import BUCKETS, Policy, Role, accounts_of_buckets, of_resources, owner, roles

PROGRAM = Path(__file__).with_suffix(".mjs")
_AGREEING = {"Allow": "Allowed", "Deny": "ExplicitlyDenied", "ImplicitDeny": "ImplicitlyDenied"}
PULL = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability")
PUBLIC = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": list(PULL)}]}
"""The policy of AWS's own image repositories, which are in accounts of AWS's and can be pulled by everybody."""
_KEYS_IN_OTHER_WORDS = ('"kms:EncryptionContext:', '"aws:PrincipalTag/kms:EncryptionContext:')
"""The evaluator knows keys with a name of the caller's after a slash, and ignores those with one after a colon."""
LEFT_OUT = {
    "administrator": "the account's root, to which no policy applies",
    "authentication": "refused before any policy: no or wrong credentials",
    "gone": "a role or bucket that has been deleted since",
}
"""Why a line of the log is not decided again."""


@dataclass(frozen=True)
class Deployed:
    """What decides, of all accounts together: roles and resources' own policies by ARN, and whose each bucket is."""

    roles: dict[str, Role]
    policies: dict[str, Policy]
    buckets: dict[str, str]

    def account(self, entry: dict[str, Any]) -> str:
        """Whose the line's resource is: as its ARN says, or a bucket's owner; `*` is the caller's."""
        resource = str(entry["resource"])
        named = resource.split(":")
        caller = (entry.get("context") or {}).get("aws:SourceAccount") or entry.get("role", "::::").split(":")[4]
        return (named[4] if len(named) > 5 else "") or self.buckets.get(owner(resource)) or str(caller)

    def has(self, arn: str) -> bool:
        """False for a bucket, or what is in it, that no account has."""
        return not arn.startswith(BUCKETS) or owner(arn) in self.buckets


@dataclass
class Opinion:
    """What the second evaluator said of a log: lines by what became of them, and every disagreement."""

    decided: int = 0
    denied: int = 0
    distinct: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    disagreements: list[dict[str, Any]] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        return {"decided": self.decided, "denied": self.denied, "distinct": self.distinct,
                "left_out": {LEFT_OUT[why]: number for why, number in sorted(self.left_out.items())},
                "disagreements": self.disagreements}  # fmt: skip


def ask(accounts: Sequence[ClientOf], entries: Iterable[dict[str, Any]]) -> Opinion:
    """Decide every line again, by the policies of all these accounts; equal questions are asked once."""
    opinion = Opinion()
    deployed = _deployed(accounts)
    questions: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if why := _left_out(entry, deployed):
            opinion.left_out[why] += 1
        else:
            question = json.dumps(_question(entry, deployed), sort_keys=True).replace(*_KEYS_IN_OTHER_WORDS)
            questions.setdefault(question, []).append(entry)
    answers = _answers(list(questions))
    for asked, answer in zip(questions.values(), answers, strict=True):
        _compare(opinion, asked, answer)
    opinion.distinct = len(questions)
    return opinion


def _deployed(accounts: Sequence[ClientOf]) -> Deployed:
    deployed = Deployed({}, {}, {})
    for client_of in accounts:
        deployed.roles.update(roles(client_of))
        deployed.policies.update(of_resources(client_of))
        deployed.buckets.update(accounts_of_buckets(client_of))
    return deployed


def _compare(opinion: Opinion, asked: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    for entry in asked:
        opinion.decided += 1
        opinion.denied += entry["decision"] != "Allow"
        if answer.get("result") != _AGREEING[entry["decision"]]:
            opinion.disagreements.append({**entry, "second_opinion": answer})


def _left_out(entry: dict[str, Any], deployed: Deployed) -> str:
    """Empty if the line can be decided again."""
    if entry["policy"] == "trust" and entry["resource"] not in deployed.roles:
        return "gone"
    if entry["policy"] == "identity" and "role" not in entry:
        return "authentication" if entry["principal"] == "anonymous" else "administrator"
    if entry["policy"] == "identity" and entry["role"] not in deployed.roles:
        return "gone"
    return "" if deployed.has(entry["resource"]) else "gone"


def _question(entry: dict[str, Any], deployed: Deployed) -> dict[str, Any]:
    resource = entry["resource"]
    question: dict[str, Any] = {
        "request": {
            "principal": entry["principal"],
            "action": entry["action"],
            "resource": {"resource": resource, "accountId": deployed.account(entry)},
            "contextVariables": _keys(entry, deployed),
        },
        "identityPolicies": [],
        "serviceControlPolicies": [],
        "resourceControlPolicies": [],
    }
    if entry["policy"] == "identity":
        role = deployed.roles[entry["role"]]
        question["identityPolicies"] = [{"name": n, "policy": p} for n, p in sorted(role.policies.items())]
        if role.boundary is not None:
            question["permissionBoundaryPolicies"] = [{"name": "boundary", "policy": role.boundary}]
    if entry["policy"] == "trust":
        question["resourcePolicy"] = deployed.roles[resource].trust
        if (by := deployed.roles.get(entry["principal"])) is not None:
            question["identityPolicies"] = [{"name": n, "policy": p} for n, p in sorted(by.policies.items())]
    elif (policy := deployed.policies.get(owner(resource)) or _of_aws(entry, deployed)) is not None:
        question["resourcePolicy"] = policy
    return question


def _of_aws(entry: dict[str, Any], deployed: Deployed) -> Policy | None:
    foreign = deployed.account(entry) != entry["role"].split(":")[4]
    return PUBLIC if foreign and entry["resource"].startswith("arn:aws:ecr:") else None


def _keys(entry: dict[str, Any], deployed: Deployed) -> dict[str, Any]:
    given: dict[str, Any] = {**(entry.get("context") or {})}
    if role := entry.get("role"):
        given |= {"aws:PrincipalArn": role, "aws:PrincipalAccount": role.split(":")[4],
                  "aws:PrincipalType": "AssumedRole"}  # fmt: skip
    given["aws:ResourceAccount"] = deployed.account(entry)
    if entry.get("region"):
        given["aws:RequestedRegion"] = entry["region"]
    return {key: _text(value) for key, value in given.items()}


def _text(value: Any) -> str | list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _answers(questions: list[str]) -> list[dict[str, Any]]:
    modules = npm_tools.fetch(*npm_tools.IAM_SIMULATE)
    done = subprocess.run(
        [npm_tools.node(), str(PROGRAM), str(modules)],
        input="\n".join(questions),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
