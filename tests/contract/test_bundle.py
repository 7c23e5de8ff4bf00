"""The bundle: the same tree gives the same bytes, and nothing gets in or out that should not."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from config import Guardrails, Invalid
from contract import load_model
from contract.bundle import Bundle, pack


def packed(root: Path, guardrails: Guardrails) -> Bundle:
    return pack(root, load_model(root, "buy", guardrails), guardrails)


def names(bundle: Bundle) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(bundle.sourcedir)) as archive:
        return archive.getnames()


def test_the_same_tree_gives_the_same_bytes_whatever_its_times_and_modes(
    repository: Path, guardrails: Guardrails
) -> None:
    first = packed(repository, guardrails)
    for number, path in enumerate(sorted((repository / "model_code").rglob("*.py"))):
        os.utime(path, (number, number))
        path.chmod(0o755)
    second = packed(repository, guardrails)
    assert (first.sourcedir, first.modules, first.sha256) == (second.sourcedir, second.modules, second.sha256)


def test_another_tree_has_another_address(repository: Path, guardrails: Guardrails) -> None:
    before = packed(repository, guardrails).sha256
    (repository / "model_code" / "buy" / "train.py").write_text("print()\n")
    assert packed(repository, guardrails).sha256 != before


def test_tests_caches_and_hidden_files_stay_behind(repository: Path, guardrails: Guardrails) -> None:
    before = packed(repository, guardrails).sha256
    folder = repository / "model_code" / "buy"
    for name in ("__pycache__/train.cpython-311.pyc", ".ipynb_checkpoints/x.py", "tests/test_more.py", ".env"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x = 1\n")
    assert packed(repository, guardrails).sha256 == before


def test_the_entry_is_at_the_root_and_the_manifest_lists_every_file(repository: Path, guardrails: Guardrails) -> None:
    bundle = packed(repository, guardrails)
    with tarfile.open(fileobj=io.BytesIO(bundle.sourcedir)) as archive:
        manifest = json.load(archive.extractfile("pushline.json") or io.BytesIO())
    assert manifest["files"] == names(bundle)
    assert manifest["scripts"] == {"train": "train.py", "evaluate": None, "inference": "inference.py"}
    assert {"pushline_entry.py", "model_code/__init__.py", "model_code/buy/train.py"} <= set(manifest["files"])


def test_what_is_watched_travels_and_other_folders_do_not(repository: Path, guardrails: Guardrails) -> None:
    assert "model_code/shared/dates.py" not in names(packed(repository, guardrails))
    path = repository / "model_code" / "buy" / "model.yaml"
    path.write_text(path.read_text() + "watch: [model_code/shared]\n")
    bundle = packed(repository, guardrails)
    assert "model_code/shared/dates.py" in names(bundle)
    with zipfile.ZipFile(io.BytesIO(bundle.modules)) as modules:
        assert {"model_code/shared/dates.py", "model_code/buy/columns.py"} <= set(modules.namelist())
        assert all(name.endswith(".py") for name in modules.namelist())


def test_a_bundle_beyond_the_limit_is_refused(repository: Path, guardrails: Guardrails) -> None:
    for number in range(12):
        with (repository / "model_code" / "buy" / f"part{number}.bin").open("wb") as file:
            file.truncate(9_500_000)
    with pytest.raises(Invalid, match=r"packs 114\.\d MB; allowed: at most 100 MB"):
        packed(repository, guardrails)


def test_a_link_made_after_loading_is_refused(repository: Path, guardrails: Guardrails) -> None:
    model = load_model(repository, "buy", guardrails)
    (repository / "model_code" / "buy" / "x.csv").symlink_to("/etc/passwd")
    with pytest.raises(Invalid, match="symbolic link"):
        pack(repository, model, guardrails)


def test_written_files_are_below_the_digest(repository: Path, guardrails: Guardrails, tmp_path: Path) -> None:
    bundle = packed(repository, guardrails)
    place = bundle.write(tmp_path / "bundles")
    assert place.name == bundle.sha256
    assert sorted(path.name for path in place.iterdir()) == [
        "features.py", "modules.zip", bundle.sample_name, "sourcedir.tar.gz"]  # fmt: skip
