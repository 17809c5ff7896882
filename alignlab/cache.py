"""Artifacts built once: a folder or a small JSON result, named by what made it.

The name is a hash of the parameters *and* of the code that builds it, so a changed
recipe never finds the old result, and an unchanged one is instant the second time.
"""

import ast
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import platformdirs
from filelock import FileLock


def cache_dir() -> Path:
    """The folder everything downloaded or built goes to: ``$ALIGNLAB_CACHE``, or the
    user's cache folder. It may be deleted at any time; it will be filled again."""
    path = os.environ.get("ALIGNLAB_CACHE") or platformdirs.user_cache_dir("alignlab")
    return Path(path).expanduser()


def code_hash(modules: Sequence[ModuleType]) -> str:
    """Hash of what the modules *do*: comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for module in modules:
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and _starts_with_docstring(node):
                node.body = body[1:]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _starts_with_docstring(node: ast.AST) -> bool:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, documented) and ast.get_docstring(node) is not None


def artifact_path(kind: str, key: Mapping, code: Sequence[ModuleType] = ()) -> Path:
    """Where the artifact of this key and code lives, whether or not it exists yet."""
    text = json.dumps({"key": key, "code": code_hash(code)}, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:20]
    return cache_dir() / "artifacts" / kind / name


def artifact(
    kind: str,
    build: Callable[[Path], None],
    *,
    key: Mapping,
    code: Sequence[ModuleType] = (),
) -> Path:
    """The folder that ``build(folder)`` fills, built at most once per key and code.

    ``build`` writes into a temporary folder that is renamed when it returns, so a
    killed build leaves nothing that could be taken for whole. Two processes asking
    at once: one builds, the other waits.

    Args:
        kind: a short name people can read in the cache ("sft", "tasks").
        build: fills the folder it is given.
        key: what the artifact depends on (parameters, seed), JSON-able.
        code: modules whose change makes it another artifact.
    """
    path = artifact_path(kind, key, code)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=".building-"))
            try:
                build(temporary)
                os.replace(temporary, path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return path


def remember(
    kind: str,
    compute: Callable[[], object],
    *,
    key: Mapping,
    code: Sequence[ModuleType] = (),
) -> object:
    """The JSON value that ``compute()`` returns, computed once per key and code."""

    def build(folder: Path) -> None:
        (folder / "value.json").write_text(json.dumps(compute()), encoding="utf-8")

    path = artifact(kind, build, key=key, code=code)
    return json.loads((path / "value.json").read_text(encoding="utf-8"))
