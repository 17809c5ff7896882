"""Artifacts built once: a folder or a small JSON result, named by what made it.

The name is a hash of the parameters *and* of the code that builds it, so a changed
recipe never finds the old result, and an unchanged one is instant the second time.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import platformdirs
from filelock import FileLock

from alignlab.errors import explained_if_full


def cache_dir() -> Path:
    """The folder everything downloaded or built goes to: ``$ALIGNLAB_CACHE``, or the
    user's cache folder. It may be deleted at any time; it will be filled again."""
    path = os.environ.get("ALIGNLAB_CACHE") or platformdirs.user_cache_dir("alignlab")
    return Path(path).expanduser()


def code_hash(modules: Sequence[ModuleType]) -> str:
    """Hash of what the modules, and all of alignlab that they import, *do*: comments,
    docstrings and layout do not count."""
    found: dict[str, str] = {}
    todo = [module.__name__ for module in modules]
    while todo:
        name = todo.pop()
        if name not in found and name not in _PASSIVE:
            found[name], imported = _syntax(name)
            todo += imported
    text = "".join(found[name] for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()


# They carry results about but do not make them.
_PASSIVE = (
    "alignlab",
    "alignlab.cache",
    "alignlab.errors",
    "alignlab.study.arms",
)


@functools.cache
def _syntax(name: str) -> tuple[str, tuple[str, ...]]:
    """A module's syntax tree without docstrings, and the alignlab modules it imports,
    also inside its functions."""
    source = importlib.util.find_spec(name).origin
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))
    imported: list[str] = []
    for node in ast.walk(tree):
        if _starts_with_docstring(node):
            node.body = node.body[1:]
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module]
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
    return ast.dump(tree), tuple(n for n in imported if _is_ours(n))


@functools.cache
def _is_ours(name: str) -> bool:
    if not name.startswith("alignlab."):
        return False
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a function imported from a module
        return False
    return spec is not None and spec.origin is not None


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
    killed build leaves nothing that could be taken for whole; the next one clears it
    away. Two processes asking at once: one builds, the other waits.

    Args:
        kind: a short name people can read in the cache ("sft", "tasks").
        build: fills the folder it is given.
        key: what the artifact depends on (parameters, seed), JSON-able.
        code: modules whose change, or that of what they import from alignlab, makes
            it another artifact.

    Raises:
        AlignlabError: if the disk is full.
    """
    path = artifact_path(kind, key, code)
    if path.exists():
        return path
    with explained_if_full(cache_dir(), _MORE_ROOM):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                _build(build, path)
    return path


_MORE_ROOM = "Free some space, or set ALIGNLAB_CACHE to a folder on another disk."


def _build(build: Callable[[Path], None], path: Path) -> None:
    """Build beside the path and rename; whoever calls holds the path's lock.

    In one thread: sums over several come out in another order, training enlarges that,
    and what is kept must not depend on who was the first to ask for it.
    """
    unfinished = path.with_name(f".building-{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)  # a killed build's
    unfinished.mkdir()
    try:
        with explained_if_full(cache_dir(), _MORE_ROOM), _one_thread():
            build(unfinished)
            os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """With torch on one thread, as it was before afterwards."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
