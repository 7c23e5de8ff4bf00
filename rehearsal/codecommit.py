"""CodeCommit: bare repositories that real git clones from and pushes to; a push emits the event.

Next hop: the rule on `CodeCommit Repository State Change` starts the routing function.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import re
import secrets
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from rehearsal.git import Difference, Repository
from rehearsal.service import (
    Caller,
    Cloud,
    Params,
    Permission,
    Provisioned,
    ResourceType,
    Response,
    Route,
    Service,
    ServiceError,
    Stack,
    Unsupported,
    arn,
)

KIND = "codecommit/repository"
ROUTE = "/v1/repos/"
PAGE = 100
LARGEST_FILE = 6 * 1024 * 1024
_MODES = {"100644": "NORMAL", "100755": "EXECUTABLE", "120000": "SYMLINK"}


def repository(cloud: Cloud, account: str, name: str) -> Repository:
    """The repository on disk, whether or not it exists."""
    return Repository(cloud.state_dir.resolve() / "codecommit" / account / f"{name}.git")


def git_url(state_dir: Path, endpoint: str, name: str, account: str = "") -> str:
    """The URL for `git remote add`, with the credentials that the daemon of this state directory accepts."""
    owner = account or next((place.parent.name for place in state_dir.glob(f"codecommit/*/{name}.git")), "")
    if not owner:
        raise KeyError(f"there is no repository {name}")
    scheme, _, rest = endpoint.partition("://")
    return f"{scheme}://{_user(owner)}:{_password(state_dir)}@{rest}{ROUTE}{name}"


class CodeCommit(Service):
    name = "codecommit"

    def start(self) -> None:
        """Announce pushes whose event an earlier process did not get to send."""
        for _, document in self.cloud.store.list(KIND):
            self._announce(document["repositoryName"], Caller(document["accountId"], document["region"]))

    def git_url(self, name: str, account: str = "") -> str:
        """The URL for `git remote add`, with the credentials that this state directory's daemon accepts."""
        return git_url(self.cloud.state_dir, self.cloud.endpoint, name, account)

    def http_routes(self) -> dict[str, Route]:
        return {ROUTE: self._serve}

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        action = f"codecommit:{operation}"
        if operation == "ListRepositories":
            return [Permission(action)]
        if operation in ("TagResource", "UntagResource", "ListTagsForResource"):
            return [Permission(action, params["resourceArn"])]
        if not self.runs(operation):
            raise Unsupported(f"codecommit:{operation} is not rehearsed")
        where = arn("codecommit", caller, params.get("repositoryName", ""))
        tagging = [Permission("codecommit:TagResource", where)] if params.get("tags") else []
        return [Permission(action, where), *tagging]

    def resource_types(self) -> dict[str, ResourceType]:
        return {"AWS::CodeCommit::Repository": RepositoryType(self.cloud)}

    # -- repositories -----------------------------------------------------------------------------------

    def create_repository(self, caller: Caller, params: Params) -> Params:
        name = params["repositoryName"]
        if not re.fullmatch(r"[\w.-]{1,100}", name) or name.endswith(".git"):
            raise ServiceError("InvalidRepositoryNameException", f"{name} is not a repository name")
        now = time.time()
        with self.cloud.store.transaction():
            if self.cloud.store.get(KIND, _key(caller, name)):
                raise ServiceError("RepositoryNameExistsException", f"Repository named {name} already exists")
            document = {
                "accountId": caller.account,
                "repositoryId": str(uuid.uuid4()),
                "repositoryName": name,
                "Arn": arn("codecommit", caller, name),
                "creationDate": now,
                "lastModifiedDate": now,
                "repositoryDescription": params.get("repositoryDescription"),
                "region": caller.region,
                "kmsKeyId": params.get("kmsKeyId"),
                "tags": params.get("tags", {}),
                "announced": {},
            }
            # A folder without a document is what a killed creation left behind.
            bare = repository(self.cloud, caller.account, name)
            bare.delete()
            bare.create()
            self.cloud.store.put(KIND, _key(caller, name), document)
        return {"repositoryMetadata": self._metadata(document)}

    def get_repository(self, caller: Caller, params: Params) -> Params:
        return {"repositoryMetadata": self._metadata(self._document(caller, params))}

    def delete_repository(self, caller: Caller, params: Params) -> Params:
        document = self.cloud.store.get(KIND, _key(caller, params["repositoryName"]))
        if document is None:
            return {}
        self.cloud.store.delete(KIND, _key(caller, params["repositoryName"]))
        repository(self.cloud, caller.account, params["repositoryName"]).delete()
        return {"repositoryId": document["repositoryId"]}

    def list_repositories(self, caller: Caller, params: Params) -> Params:
        own = [d for _, d in self.cloud.store.list(KIND) if d["accountId"] == caller.account]
        own.sort(key=lambda d: d[params.get("sortBy", "repositoryName")], reverse=params.get("order") == "descending")
        page, token = _page(own, params.get("nextToken"), 1000)
        return {
            "repositories": [{k: d[k] for k in ("repositoryName", "repositoryId")} for d in page],
            "nextToken": token,
        }

    def update_repository_description(self, caller: Caller, params: Params) -> None:
        self._change(caller, params, repositoryDescription=params.get("repositoryDescription"))

    def update_default_branch(self, caller: Caller, params: Params) -> None:
        self.get_branch(caller, {**params, "branchName": params["defaultBranchName"]})
        self._bare(caller, params).set_default_branch(params["defaultBranchName"])
        self._change(caller, params)

    def tag_resource(self, caller: Caller, params: Params) -> None:
        target = {"repositoryName": params["resourceArn"].rpartition(":")[2]}
        self._change(caller, target, tags={**self._document(caller, target)["tags"], **params["tags"]})

    def untag_resource(self, caller: Caller, params: Params) -> None:
        target = {"repositoryName": params["resourceArn"].rpartition(":")[2]}
        kept = {k: v for k, v in self._document(caller, target)["tags"].items() if k not in params["tagKeys"]}
        self._change(caller, target, tags=kept)

    def list_tags_for_resource(self, caller: Caller, params: Params) -> Params:
        return {"tags": self._document(caller, {"repositoryName": params["resourceArn"].rpartition(":")[2]})["tags"]}

    # -- contents ---------------------------------------------------------------------------------------

    def get_branch(self, caller: Caller, params: Params) -> Params:
        _required(params, "branchName", "BranchNameRequiredException")
        branch = params["branchName"]
        commit = self._bare(caller, params).references().get(f"refs/heads/{branch}")
        if commit is None:
            raise ServiceError("BranchDoesNotExistException", f"Branch {branch} does not exist")
        return {"branch": {"branchName": branch, "commitId": commit}}

    def list_branches(self, caller: Caller, params: Params) -> Params:
        names = [n.removeprefix("refs/heads/") for n in self._bare(caller, params).references() if "/heads/" in n]
        page, token = _page(names, params.get("nextToken"), PAGE)
        return {"branches": page, "nextToken": token}

    def get_commit(self, caller: Caller, params: Params) -> Params:
        bare, commit = self._bare(caller, params), params["commitId"]
        if not re.fullmatch(r"[0-9a-f]{40}", commit) or bare.resolve(commit) is None:
            raise ServiceError("CommitIdDoesNotExistException", f"Commit {commit} does not exist")
        parsed = bare.commit(commit)
        return {
            "commit": {
                "commitId": commit,
                "treeId": parsed["tree"],
                "parents": parsed["parents"],
                "message": parsed["message"],
                "additionalData": "",
                "author": _person(str(parsed["author"])),
                "committer": _person(str(parsed["committer"])),
            }
        }

    def get_differences(self, caller: Caller, params: Params) -> Params:
        bare = self._bare(caller, params)
        before = params.get("beforeCommitSpecifier")
        after = self._commit(bare, params["afterCommitSpecifier"])
        found = bare.differences(self._commit(bare, before) if before else None, after)
        prefixes = [p.strip("/") for p in (params.get("beforePath"), params.get("afterPath")) if p and p.strip("/")]
        if prefixes:
            found = [d for d in found if any(f"{d.path}/".startswith(f"{p}/") for p in prefixes)]
        limit = params.get("MaxResults", PAGE)
        if limit < 1:
            raise ServiceError("InvalidMaxResultsException", "MaxResults must be at least 1")
        page, token = _page(found, params.get("NextToken"), limit)
        return {"differences": [_wire(d) for d in page], "NextToken": token}

    def get_file(self, caller: Caller, params: Params) -> Params:
        bare = self._bare(caller, params)
        commit, path = self._commit(bare, params.get("commitSpecifier") or "HEAD"), params["filePath"].strip("/")
        entry = next((e for e in bare.tree(commit, path) if e.kind == "blob" and e.path == path), None)
        if entry is None:
            raise ServiceError("FileDoesNotExistException", f"There is no file {path} in {commit}")
        content = bare.blob(entry.id)
        if len(content) > LARGEST_FILE:
            raise ServiceError("FileTooLargeException", f"{path} is larger than 6 MB; use git")
        return {
            "commitId": commit,
            "blobId": entry.id,
            "filePath": path,
            "fileMode": _MODES[entry.mode],
            "fileSize": len(content),
            "fileContent": content,
        }

    def get_folder(self, caller: Caller, params: Params) -> Params:
        bare, folder = self._bare(caller, params), params["folderPath"].strip("/")
        commit = self._commit(bare, params.get("commitSpecifier") or "HEAD")
        entries = bare.tree(commit, f"{folder}/" if folder else "")
        if folder and not entries:
            raise ServiceError("FolderDoesNotExistException", f"There is no folder {folder} in {commit}")
        tree = bare.git("rev-parse", f"{commit}:{folder}").decode().strip()
        result: Params = {
            "commitId": commit,
            "folderPath": folder,
            "treeId": tree,
            "subFolders": [],
            "files": [],
            "symbolicLinks": [],
            "subModules": [],
        }
        for entry in entries:
            place, item = _placed(entry.mode, entry.kind, entry.id)
            result[place].append({**item, "absolutePath": entry.path, "relativePath": entry.path.rpartition("/")[2]})
        return result

    # -- git over HTTP ----------------------------------------------------------------------------------

    def _serve(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Response:
        headers = {name.lower(): value for name, value in headers.items()}
        account = self._authenticated(headers.get("authorization", ""))
        if account is None:
            return 401, {"WWW-Authenticate": 'Basic realm="rehearsal"'}, b"the user or password is wrong\n"
        name, _, service_path = path.removeprefix(ROUTE).partition("/")
        document = self.cloud.store.get(KIND, f"{account}/{name.removesuffix('.git')}")
        if document is None:
            return 404, {"Content-Type": "text/plain"}, f"Repository {name} does not exist\n".encode()
        bare = repository(self.cloud, account, document["repositoryName"])
        if not service_path.endswith("git-receive-pack"):
            return bare.serve(method, service_path, query, headers, body)
        with bare.lock:
            response = bare.serve(method, service_path, query, headers, body)
            caller = Caller(account, document["region"], f"arn:aws:iam::{account}:user/rehearsal")
            self._announce(document["repositoryName"], caller)
        return response

    def _authenticated(self, header: str) -> str | None:
        """The account a basic authorization header proves, if it does."""
        try:
            user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        except ValueError:
            return None
        account = user.rpartition("-at-")[2]
        proven = hmac.compare_digest(password.encode(), _password(self.cloud.state_dir).encode())
        return account if proven and user == _user(account) else None

    def _announce(self, name: str, caller: Caller) -> None:
        """Emit one event per reference that is not where the last event said it is."""
        bare = repository(self.cloud, caller.account, name)
        with bare.lock:
            document = self._document(caller, {"repositoryName": name})
            told, now = document["announced"], bare.references()
            if now and bare.default_branch() is None:
                branches = [n for n in now if n.startswith("refs/heads/")]
                if branches:
                    bare.set_default_branch(branches[0].removeprefix("refs/heads/"))
            for reference in [*now, *(set(told) - set(now))]:
                if told.get(reference) != now.get(reference):
                    detail = _change_detail(document, reference, told.get(reference), now.get(reference), caller.arn)
                    self.cloud.emit(
                        "aws.codecommit", "CodeCommit Repository State Change", detail, [document["Arn"]], caller
                    )
            if told != now:
                self._change(caller, {"repositoryName": name}, announced=now)

    # -- lookups ----------------------------------------------------------------------------------------

    def _document(self, caller: Caller, params: Params) -> Params:
        _required(params, "repositoryName", "RepositoryNameRequiredException")
        document = self.cloud.store.get(KIND, _key(caller, params["repositoryName"]))
        if document is None:
            raise ServiceError("RepositoryDoesNotExistException", f"{params['repositoryName']} does not exist")
        return document

    def _change(self, caller: Caller, params: Params, **changes: Any) -> None:
        self._document(caller, params)
        self.cloud.store.update(
            KIND, _key(caller, params["repositoryName"]), lambda d: d.update(changes, lastModifiedDate=time.time())
        )

    def _bare(self, caller: Caller, params: Params) -> Repository:
        self._document(caller, params)
        return repository(self.cloud, caller.account, params["repositoryName"])

    def _commit(self, bare: Repository, specifier: str) -> str:
        commit = bare.resolve(specifier)
        if commit is None:
            raise ServiceError("CommitDoesNotExistException", f"Commit {specifier} does not exist")
        return commit

    def _metadata(self, document: Params) -> Params:
        bare = repository(self.cloud, document["accountId"], document["repositoryName"])
        hidden = ("region", "tags", "announced")
        return {k: v for k, v in document.items() if k not in hidden} | {
            "defaultBranch": bare.default_branch(),
            "cloneUrlHttp": _clone_url(self.cloud, document["repositoryName"]),
            "cloneUrlSsh": _ssh_url(document["region"], document["repositoryName"]),
        }


class RepositoryType(ResourceType):
    """AWS::CodeCommit::Repository; Ref is the repository's id."""

    attributes: ClassVar[frozenset[str]] = frozenset({"Arn", "CloneUrlHttp", "CloneUrlSsh", "Name"})
    replacement: ClassVar[frozenset[str]] = frozenset({"RepositoryName"})

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        _refuse(properties, stack)
        wanted = {
            "repositoryName": properties["RepositoryName"],
            "tags": _tags(properties, stack),
            "repositoryDescription": properties.get("RepositoryDescription"),
            "kmsKeyId": properties.get("KmsKeyId"),
        }
        made = self._client(stack).create_repository(**{k: v for k, v in wanted.items() if v})
        return self._provisioned(made["repositoryMetadata"])

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        _refuse(new, stack)
        if old.get("KmsKeyId") != new.get("KmsKeyId"):
            raise Unsupported(f"{stack.logical_id}: changing a repository's key is not rehearsed")
        client, name = self._client(stack), new["RepositoryName"]
        client.update_repository_description(
            repositoryName=name, repositoryDescription=new.get("RepositoryDescription", "")
        )
        metadata = client.get_repository(repositoryName=name)["repositoryMetadata"]
        wanted, present = _tags(new, stack), client.list_tags_for_resource(resourceArn=metadata["Arn"])["tags"]
        if gone := [key for key in present if key not in wanted]:
            client.untag_resource(resourceArn=metadata["Arn"], tagKeys=gone)
        if wanted:
            client.tag_resource(resourceArn=metadata["Arn"], tags=wanted)
        return self._provisioned(metadata)

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        self._client(stack).delete_repository(repositoryName=properties["RepositoryName"])

    def _client(self, stack: Stack) -> Any:
        by = "cloudformation.amazonaws.com" if stack.role else ""
        return self.cloud.client(
            "codecommit", role=stack.role, by=by, account=stack.caller.account, region=stack.caller.region
        )

    def _provisioned(self, metadata: Params) -> Provisioned:
        return Provisioned(
            metadata["repositoryId"],
            {
                "Arn": metadata["Arn"],
                "Name": metadata["repositoryName"],
                "CloneUrlHttp": metadata["cloneUrlHttp"],
                "CloneUrlSsh": metadata["cloneUrlSsh"],
            },
        )


def _password(state_dir: Path) -> str:
    """Made once per state directory and readable by its owner only."""
    place = state_dir / "codecommit" / "credentials.json"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{uuid.uuid4().hex}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            json.dump({"password": secrets.token_urlsafe(24)}, handle)
        with contextlib.suppress(FileExistsError):
            os.link(draft, place)  # whoever is first wins
        draft.unlink()
    return str(json.loads(place.read_text())["password"])


def _refuse(properties: Params, stack: Stack) -> None:
    for name in ("Code", "Triggers"):
        if properties.get(name):
            raise Unsupported(f"{stack.logical_id}: {name} of AWS::CodeCommit::Repository is not rehearsed")


def _tags(properties: Params, stack: Stack) -> dict[str, str]:
    return {**stack.tags, **{tag["Key"]: tag["Value"] for tag in properties.get("Tags") or []}}


def _key(caller: Caller, name: str) -> str:
    return f"{caller.account}/{name}"


def _user(account: str) -> str:
    return f"rehearsal-at-{account}"


def _clone_url(cloud: Cloud, name: str) -> str:
    return f"{cloud.endpoint}{ROUTE}{name}"


def _ssh_url(region: str, name: str) -> str:
    return f"ssh://git-codecommit.{region}.amazonaws.com{ROUTE}{name}"


def _required(params: Params, name: str, code: str) -> None:
    if not params.get(name):
        raise ServiceError(code, f"{name} is required")


def _page(items: list[Any], token: str | None, size: int) -> tuple[list[Any], str | None]:
    try:
        start = int(base64.b64decode(token)) if token else 0
    except ValueError:
        raise ServiceError("InvalidContinuationTokenException", "the token is not one of ours") from None
    following = base64.b64encode(str(start + size).encode()).decode() if start + size < len(items) else None
    return items[start : start + size], following


def _person(line: str) -> Params:
    name, _, rest = line.partition(" <")
    email, _, date = rest.partition("> ")
    return {"name": name, "email": email, "date": date}


def _wire(difference: Difference) -> Params:
    result: Params = {"changeType": difference.status if difference.status in "AD" else "M"}
    if difference.status != "A":
        result["beforeBlob"] = {"blobId": difference.before_id, "path": difference.path, "mode": difference.before_mode}
    if difference.status != "D":
        result["afterBlob"] = {"blobId": difference.after_id, "path": difference.path, "mode": difference.after_mode}
    return result


def _placed(mode: str, kind: str, identifier: str) -> tuple[str, Params]:
    if kind == "tree":
        return "subFolders", {"treeId": identifier}
    if kind == "commit":
        return "subModules", {"commitId": identifier}
    place = "symbolicLinks" if mode == "120000" else "files"
    return place, {"blobId": identifier, "fileMode": _MODES[mode]}


def _change_detail(document: Params, reference: str, old: str | None, new: str | None, caller: str) -> Params:
    event = "referenceUpdated" if old and new else "referenceCreated" if new else "referenceDeleted"
    detail = {
        "event": event,
        "repositoryId": document["repositoryId"],
        "repositoryName": document["repositoryName"],
        "referenceType": "tag" if reference.startswith("refs/tags/") else "branch",
        "referenceName": reference.split("/", 2)[2],
        "referenceFullName": reference,
        "callerUserArn": caller,
        "commitId": new,
        "oldCommitId": old,
    }
    return {key: value for key, value in detail.items() if value}
