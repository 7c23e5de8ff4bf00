"""CodeCommit as git and boto3 see it."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.codecommit import CodeCommit
from tests.rehearsal.loopback import Loopback, serve


def git(folder: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.com",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.com",
    }
    done = subprocess.run(
        ["git", "-c", "core.hooksPath=/dev/null", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.strip()


def commit(folder: Path, message: str = "change", **files: str | None) -> str:
    for name, content in files.items():
        place = folder / name.replace("__", "/").replace("_dot_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            place.unlink()
        else:
            place.write_text(content)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Loopback]:
    with serve(CodeCommit, tmp_path=tmp_path / "state") as running:
        running.client("codecommit").create_repository(repositoryName="pushline")
        yield running


@pytest.fixture
def work(tmp_path: Path, cloud: Loopback) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    service: Any = cloud.service("codecommit")
    git(folder, "remote", "add", "origin", service.git_url("pushline"))
    return folder


def changes(cloud: Loopback) -> list[dict[str, Any]]:
    return [event["detail"] for event in cloud.events]


def test_the_first_push_creates_the_branch_and_says_so(cloud: Loopback, work: Path) -> None:
    head = commit(work, readme="hello")
    git(work, "push", "-q", "origin", "main")
    [event] = cloud.events
    repository = cloud.client("codecommit").get_repository(repositoryName="pushline")["repositoryMetadata"]
    assert (event["source"], event["detail-type"]) == ("aws.codecommit", "CodeCommit Repository State Change")
    assert event["resources"] == [repository["Arn"]]
    assert event["detail"] == {
        "event": "referenceCreated",
        "repositoryId": repository["repositoryId"],
        "repositoryName": "pushline",
        "referenceType": "branch",
        "referenceName": "main",
        "referenceFullName": "refs/heads/main",
        "commitId": head,
        "callerUserArn": "arn:aws:iam::000000000000:user/rehearsal",
    }
    assert repository["defaultBranch"] == "main"


def test_updates_force_pushes_tags_and_deletions_each_emit_one_event(cloud: Loopback, work: Path) -> None:
    first = commit(work, readme="1")
    git(work, "push", "-q", "origin", "main", "main:side")
    second = commit(work, readme="2")
    git(work, "tag", "v1")
    git(work, "push", "-q", "origin", "main", "v1")
    git(work, "push", "-q", "--force", "origin", f"{first}:main")
    git(work, "push", "-q", "origin", ":side")
    told = [(d["event"], d["referenceName"], d.get("oldCommitId"), d.get("commitId")) for d in changes(cloud)[2:]]
    assert told == [
        ("referenceUpdated", "main", first, second),
        ("referenceCreated", "v1", None, second),
        ("referenceUpdated", "main", second, first),
        ("referenceDeleted", "side", first, None),
    ]


def test_a_push_that_changes_nothing_emits_nothing(cloud: Loopback, work: Path) -> None:
    commit(work, readme="1")
    git(work, "push", "-q", "origin", "main")
    git(work, "push", "-q", "origin", "main")
    assert len(cloud.events) == 1


def test_a_push_of_tens_of_megabytes_can_be_cloned_again(cloud: Loopback, work: Path, tmp_path: Path) -> None:
    (work / "big").write_bytes(os.urandom(30_000_000))
    commit(work)
    git(work, "push", "-q", "origin", "main")
    git(tmp_path, "clone", "-q", git(work, "remote", "get-url", "origin"), "copy")
    assert (tmp_path / "copy" / "big").read_bytes() == (work / "big").read_bytes()


def test_a_wrong_password_is_refused(cloud: Loopback, work: Path) -> None:
    commit(work, readme="1")
    service: Any = cloud.service("codecommit")
    url = service.git_url("pushline")
    wrong = url.replace(url.split(":")[2].split("@")[0], "guess")
    with pytest.raises(RuntimeError, match=r"Authentication failed"):
        git(work, "push", "-q", wrong, "main")


def test_the_password_is_readable_by_its_owner_only(cloud: Loopback, work: Path) -> None:
    [place] = cloud.state_dir.glob("codecommit/credentials.json")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_push_that_was_not_announced_is_announced_at_the_next_start(cloud: Loopback, work: Path) -> None:
    commit(work, readme="1")
    git(work, "push", "-q", "origin", "main")
    head = commit(work, readme="2")
    git(work, "push", "-q", str(next(cloud.state_dir.resolve().glob("codecommit/*/pushline.git"))), "main")
    assert len(cloud.events) == 1
    cloud.service("codecommit").start()
    assert changes(cloud)[-1]["commitId"] == head
    cloud.service("codecommit").start()
    assert len(cloud.events) == 2


def test_differences_are_paged_and_a_move_is_a_deletion_and_an_addition(cloud: Loopback, work: Path) -> None:
    before = commit(work, kept="same", moved="a long enough content to be found similar", edited="1")
    after = commit(work, moved=None, folder__moved="a long enough content to be found similar", edited="2")
    git(work, "push", "-q", "origin", "main")
    client = cloud.client("codecommit")
    pages = list(
        client.get_paginator("get_differences").paginate(
            repositoryName="pushline",
            beforeCommitSpecifier=before,
            afterCommitSpecifier=after,
            PaginationConfig={"PageSize": 2},
        )
    )
    found = [
        (d["changeType"], d.get("afterBlob", d.get("beforeBlob"))["path"])
        for page in pages
        for d in page["differences"]
    ]
    assert found == [("M", "edited"), ("A", "folder/moved"), ("D", "moved")]
    assert [len(page["differences"]) for page in pages] == [2, 1]
    everything = client.get_differences(repositoryName="pushline", afterCommitSpecifier="main")["differences"]
    assert [d["afterBlob"]["path"] for d in everything] == ["edited", "folder/moved", "kept"]


def test_commits_files_and_folders_read_as_pushed(cloud: Loopback, work: Path) -> None:
    first = commit(work, readme="hello", folder__file="x")
    second = commit(work, "second\n\nwith a body", readme="bye")
    git(work, "push", "-q", "origin", "main")
    client = cloud.client("codecommit")
    found = client.get_commit(repositoryName="pushline", commitId=second)["commit"]
    assert found["parents"] == [first]
    assert found["message"].startswith("second\n\nwith")
    assert found["author"]["name"] == "Ada"
    assert client.get_file(repositoryName="pushline", filePath="readme")["fileContent"] == b"bye"
    folder = client.get_folder(repositoryName="pushline", folderPath="/")
    assert [f["relativePath"] for f in folder["files"]] == ["readme"]
    assert [f["absolutePath"] for f in folder["subFolders"]] == ["folder"]
    assert client.get_branch(repositoryName="pushline", branchName="main")["branch"]["commitId"] == second
    assert client.list_branches(repositoryName="pushline")["branches"] == ["main"]


@pytest.mark.parametrize(
    ("operation", "parameters", "code"),
    [
        ("get_branch", {"repositoryName": "pushline", "branchName": "nowhere"}, "BranchDoesNotExistException"),
        ("get_repository", {"repositoryName": "other"}, "RepositoryDoesNotExistException"),
        (
            "get_differences",
            {"repositoryName": "pushline", "afterCommitSpecifier": "--output=x"},
            "CommitDoesNotExistException",
        ),
        ("create_repository", {"repositoryName": "pushline"}, "RepositoryNameExistsException"),
        ("create_repository", {"repositoryName": "../x"}, "InvalidRepositoryNameException"),
        ("create_pull_request", {"title": "x", "targets": []}, "UnsupportedByRehearsal"),
    ],
)
def test_errors_are_those_of_the_service(
    cloud: Loopback, operation: str, parameters: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(cloud.client("codecommit"), operation)(**parameters)
    assert caught.value.response["Error"]["Code"] == code


def test_a_deleted_repository_is_gone(cloud: Loopback, work: Path) -> None:
    commit(work, readme="1")
    git(work, "push", "-q", "origin", "main")
    cloud.client("codecommit").delete_repository(repositoryName="pushline")
    with pytest.raises(RuntimeError, match=r"not found"):
        git(work, "fetch", "-q", "origin")
    assert not list(cloud.state_dir.glob("codecommit/*/pushline.git"))
