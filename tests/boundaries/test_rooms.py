"""Rooms import only what they may, and no module hides from the linter that checks it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("config", "contract", "stacks", "lambdas", "model_code", "rehearsal", "bench")
# Run as files in an environment of their own, never imported: a stand-in package and the programs inside an image.
RUN_AS_FILES = ("rehearsal/awsglue_standin/", "rehearsal/model_server/", "contract/entry/")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*ROOMS, include_external_packages=True)


def test_the_import_contracts_are_kept() -> None:
    finished = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_every_module_on_disk_is_in_the_import_graph(graph: grimp.ImportGraph) -> None:
    files = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    modules = {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in files
        if not path.as_posix().startswith(RUN_AS_FILES)
    }

    assert modules - graph.modules == set()


def test_only_the_cloud_package_touches_the_embedded_aws(graph: grimp.ImportGraph) -> None:
    importers = graph.find_modules_that_directly_import("ministack") if "ministack" in graph.modules else set()

    assert {module for module in importers if not module.startswith("rehearsal.cloud")} == set()


def test_app_is_a_composition_root_of_at_most_fifty_lines() -> None:
    assert len((ROOT / "app.py").read_text().splitlines()) <= 50


def test_models_are_verified_against_the_packages_that_jobs_run_with() -> None:
    rooms = [ROOT / room / "images" / "xgboost-3.2-0.txt" for room in ("contract", "rehearsal")]
    assert rooms[0].read_bytes() == rooms[1].read_bytes()
