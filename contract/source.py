"""Reads a model's Python without running it: syntax, and whether what it imports travels with it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from config.document import Problem
from contract.bundle import packed

FORBIDDEN = frozenset({"boto3", "botocore", "config", "contract", "lambdas", "rehearsal", "stacks"})
"""What a model never imports: it knows files, arguments and SM_* variables."""


def source_problems(root: Path, paths: Sequence[str]) -> list[Problem]:
    """Syntax errors, and imports that would fail where the model runs; `paths` is its folder, then what it watches."""
    problems: list[Problem] = []
    for path, look in [
        *((path, _import_problems) for path in python_files(root, paths)),
        *((path, _left_behind) for path in _packages_above(root, paths)),
    ]:
        name = path.relative_to(root).as_posix()
        try:
            tree = ast.parse(path.read_bytes(), filename=name)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            problems.append(_syntax_problem(name, error))
        else:
            problems += look(root, paths, path, tree)
    return problems


def python_files(root: Path, paths: Sequence[str]) -> list[Path]:
    """The model's modules and tests, and those of what it watches."""
    return [
        path
        for folder in paths
        for path in sorted((root / folder).rglob("*.py"))
        if packed(Path(path.name)) and "__pycache__" not in path.parts
    ]


def _syntax_problem(name: str, error: Exception) -> Problem:
    line = (error.lineno or 1) if isinstance(error, SyntaxError) else 1
    text = error.msg if isinstance(error, SyntaxError) else str(error) or "nested too deeply"
    return Problem(name, line, "", f"is not valid Python: {text}")


def _packages_above(root: Path, paths: Sequence[str]) -> list[Path]:
    """The `__init__.py` of packages that hold what the model is made of, and are no part of it."""
    above = {parent for folder in paths for parent in PurePosixPath(folder).parents if parent.name}
    inner = {parent for parent in above if any(parent.is_relative_to(folder) for folder in paths)}
    return [path for package in sorted(above - inner) if (path := root / package / "__init__.py").is_file()]


def _left_behind(root: Path, paths: Sequence[str], path: Path, tree: ast.Module) -> Iterator[Problem]:
    """The bundle has such a package empty, and a change of it retrains nobody."""
    for node in tree.body:
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            name = path.relative_to(root).as_posix()
            text = "holds code, which stays behind; allowed: a docstring, and the code in a folder that models watch"
            yield Problem(name, node.lineno, "", text)
            return


def _import_problems(root: Path, paths: Sequence[str], path: Path, tree: ast.Module) -> Iterator[Problem]:
    name = path.relative_to(root).as_posix()
    package = list(path.relative_to(root).parts[:-1])
    for node in ast.walk(tree):
        for module in _imported(node, package, root):
            if text := _complaint(root, paths, path, module):
                yield Problem(name, getattr(node, "lineno", 1), "", f"imports {'.'.join(module)}, {text}")


def _imported(node: ast.AST, package: list[str], root: Path) -> list[list[str]]:
    """The modules that a statement imports, absolute."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".") for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = package[: len(package) - node.level + 1] if node.level else []
    module = base + (node.module.split(".") if node.module else [])
    if module[:1] != ["model_code"]:
        return [module] if module else []
    return [[*module, alias.name] if _exists(root, [*module, alias.name]) else module for alias in node.names]


def _complaint(root: Path, paths: Sequence[str], path: Path, module: list[str]) -> str | None:
    if module[0] in FORBIDDEN:
        return "which models never do; allowed: the image's packages, requirements.txt and model_code"
    if module[0] == "model_code":
        return _model_code_complaint(root, paths, path, module)
    beside = path.with_name(f"{module[0]}.py")
    if beside.is_file() and module[0] not in sys.stdlib_module_names:
        full = ".".join((*path.relative_to(root).parts[:-1], module[0]))
        return f"which is not found where the job runs; allowed: {full}"
    return None


def _model_code_complaint(root: Path, paths: Sequence[str], path: Path, module: list[str]) -> str | None:
    if len(module) > 1 and not _exists(root, module):
        return "which is missing"
    if not packed(Path(*module)) and packed(path.relative_to(root)):
        return "which stays behind: tests do not travel with the model"
    covered = [folder.split("/") for folder in paths]
    if len(module) > 1 and not any(module[: len(folder)] == folder for folder in covered):
        return f"which is neither in {paths[0]} nor watched; allowed: with `watch: [{'/'.join(module[:2])}]`"
    return None


def _exists(root: Path, module: list[str]) -> bool:
    place = root.joinpath(*module)
    return place.is_dir() or place.with_suffix(".py").is_file()
