"""Packaging: a model's code, what it watches and the platform's entry, as the same bytes for the same tree."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.document import Invalid, Problem
from config.settings import Guardrails
from contract.folder import SampleRequest, platform_evaluates, sample_request
from contract.model import Model

ENTRY = Path(__file__).with_name("entry")
ENTRY_MODULES = ("pushline_entry.py", "pushline_evaluate.py", "pushline_monitor.py", "pushline_captured.py",
                 "pushline_drift.py", "pushline_span.py", "pushline_shadow.py")  # fmt: skip
LEFT_OUT = frozenset({"tests", "__pycache__"})
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

Files = dict[str, bytes]


@dataclass(frozen=True)
class Bundle:
    """What the jobs of one retraining run; `sha256` is that of `sourcedir` and names it in S3."""

    sourcedir: bytes
    features: bytes
    modules: bytes
    sample: SampleRequest | None = None

    @property
    def sample_name(self) -> str:
        """The sample request's file, by its content: it may change while the code does not."""
        if self.sample is None:
            return ""
        digest = hashlib.sha256(self.sample.body.encode()).hexdigest()[:12]
        return f"sample_request-{digest}{self.sample.suffix}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sourcedir).hexdigest()

    def write(self, folder: Path) -> Path:
        """Write the files under `folder`/<sha256>; the folder they are in."""
        place = folder / self.sha256
        place.mkdir(parents=True, exist_ok=True)
        (place / "sourcedir.tar.gz").write_bytes(self.sourcedir)
        (place / "features.py").write_bytes(self.features)
        (place / "modules.zip").write_bytes(self.modules)
        if self.sample:
            (place / self.sample_name).write_text(self.sample.body, encoding="utf-8")
        return place


def pack(root: Path, model: Model, guardrails: Guardrails, wheels: Mapping[str, bytes] | None = None) -> Bundle:
    """The model's bundle, or Invalid when its folder holds what may not be packed."""
    code = _code(root, model)
    files = {**code, **_entry(), **{f"wheels/{name}": content for name, content in (wheels or {}).items()}}
    files["pushline.json"] = _manifest(root, model, [*files, "pushline.json"])
    _refuse_oversize(model, files, guardrails.bundle.maximum_total_mb)
    features = (root / model.folder / model.features.script).read_bytes()
    modules = {name: content for name, content in code.items() if name.endswith(".py")}
    return Bundle(_tar_gz(files), features, _zip(modules), sample_request(root, model))


def packed(path: Path) -> bool:
    """Whether a path below a model's folder belongs into the bundle."""
    return not any(part in LEFT_OUT or part.startswith(".") for part in path.parts) and path.suffix != ".pyc"


def _code(root: Path, model: Model) -> Files:
    files: Files = {"model_code/__init__.py": b""}
    for folder in model.paths:
        for path in sorted((root / folder).rglob("*")):
            if packed(path.relative_to(root / folder)) and not path.is_dir():
                files[path.relative_to(root).as_posix()] = _content(root, path)
    for folder in model.paths:
        for package in _packages(folder):
            files.setdefault(f"{package}/__init__.py", b"")
    return files


def _packages(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _content(root: Path, path: Path) -> bytes:
    name = path.relative_to(root).as_posix()
    if path.is_symlink() or not path.resolve().is_relative_to(root.resolve()):
        raise Invalid([Problem(name, 0, "", "is a symbolic link; allowed: ordinary files and folders")])
    if not path.is_file():
        raise Invalid([Problem(name, 0, "", "is not an ordinary file")])
    return path.read_bytes()


def _entry() -> Files:
    return {name: (ENTRY / name).read_bytes() for name in ENTRY_MODULES}


def _manifest(root: Path, model: Model, files: list[str]) -> bytes:
    evaluation = None if platform_evaluates(root, model) else model.evaluation.script
    scripts = {"train": model.training.script, "evaluate": evaluation, "inference": model.serving.script}
    manifest = {
        "model": model.name,
        "scripts": scripts,
        "metric": model.evaluation.metric,
        "goal": model.evaluation.goal,
        "label": model.evaluation.label,
        "files": sorted(files),
    }
    return json.dumps(manifest, indent=1).encode()


def _refuse_oversize(model: Model, files: Files, limit: int) -> None:
    size = sum(len(content) for content in files.values())
    if size > limit * 1_000_000:
        text = f"packs {size / 1e6:.1f} MB; allowed: at most {limit} MB (config/platform.yaml, guardrails.bundle)"
        raise Invalid([Problem(model.folder, 0, "", text)])


def _tar_gz(files: Files) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(files[name]), 0o644
            tar.addfile(member, io.BytesIO(files[name]))
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


def _zip(files: Files) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            target.writestr(entry, files[name])
    return archive.getvalue()
