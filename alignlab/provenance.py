"""What a result was made by: code as it was imported, library versions, device, dtype.

Of the code, only those definitions count that the builder can reach by name, and of
those what they do: comments, docstrings and layout change nothing.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import symtable
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, ModuleType

import alignlab
from alignlab.imported import SOURCES

LIBRARIES = (
    "torch transformers tokenizers numpy scipy scikit-learn datasets trl peft "
    "accelerate safetensors"
).split()

# They store results and report errors but have no influence on the results.
PASSIVE = {
    "alignlab",
    "alignlab.cache",
    "alignlab.errors",
    "alignlab.files",
    "alignlab.imported",
    "alignlab.provenance",
    "alignlab.store",
    "alignlab.study.arms",
}

# Decorators that register nothing: what they decorate counts only where it is used.
HARMLESS = {
    "cache",
    "contextmanager",
    "dataclass",
    "inference_mode",
    "lru_cache",
    "no_grad",
    "total_ordering",
}
DYNAMIC = {"__import__", "eval", "exec", "globals", "import_module"}

DATA_FILES = {".csv", ".json", ".txt", ".yaml"}
NOT_DATA = {"claims.yaml", "profiles.yaml", "weights"}  # weights_hash covers weights


# --- One module -------------------------------------------------------------------

# A module and a top-level name in it; None stands for the whole module.
Target = tuple[str, str | None]

_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_IMPORTS = ast.Import | ast.ImportFrom


class _Module:
    """The top-level statements of a module, by the names that they bind.

    ``imports`` has what each imported name was imported as; ``effects`` are statements
    that do more than bind names, and so count whatever is used of the module.
    """

    def __init__(self, name: str, source: bytes, file: Path):
        self.name, self.folder = name, file.parent
        self.package = name if file.stem == "__init__" else name.rpartition(".")[0]
        self.lines = source.decode("utf-8").splitlines(keepends=True)
        self.bindings: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, list[Target]] = {}
        self.effects: list[ast.stmt] = []
        for statement in ast.parse(source).body:
            for bound, target in self.imported(_same_scope(statement)):
                self.imports.setdefault(bound, []).append(target)
            if isinstance(statement, _IMPORTS) or _is_inert(statement):
                continue
            for bound in _bound_names(statement):
                self.bindings.setdefault(bound, []).append(statement)
            if _has_effects(statement):
                self.effects.append(statement)

    def imported(self, nodes: Iterable[ast.AST]) -> Iterator[tuple[str, Target]]:
        """Each name that import statements bind, and what they bind it to."""
        for node in nodes:
            if isinstance(node, ast.Import):
                for item in node.names:
                    yield item.asname or item.name.partition(".")[0], (item.name, None)
            elif isinstance(node, ast.ImportFrom):
                origin = self._absolute(node)
                for item in node.names:
                    yield item.asname or item.name, (origin, item.name)

    def _absolute(self, node: ast.ImportFrom) -> str:
        parts = self.package.split(".") if node.level else []
        above = parts[: len(parts) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])

    def text(self, statement: ast.stmt) -> str:
        """The source lines of a top-level statement, with its decorators."""
        decorators = getattr(statement, "decorator_list", [])
        first = min(node.lineno for node in (statement, *decorators))
        return "".join(self.lines[first - 1 : statement.end_lineno])


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "alignlab"


def _is_docstring(node: ast.AST) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(node.value.value, str)


def _is_inert(statement: ast.stmt) -> bool:
    """A docstring, or what only a type checker runs."""
    if isinstance(statement, ast.If):
        return getattr(statement.test, "id", None) == "TYPE_CHECKING"
    return _is_docstring(statement)


def _same_scope(statement: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement without the insides of functions and classes."""
    yield statement
    if not isinstance(statement, _FUNCTIONS):
        for child in ast.iter_child_nodes(statement):
            yield from _same_scope(child)


def _bound_names(statement: ast.stmt) -> set[str]:
    names = set()
    for node in _same_scope(statement):
        if isinstance(node, _FUNCTIONS):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _has_effects(statement: ast.stmt) -> bool:
    """Whether running a top-level statement may do more than bind names."""
    if isinstance(statement, _FUNCTIONS):
        return not all(map(_is_harmless, statement.decorator_list))
    if isinstance(statement, ast.Assign):
        return not all(isinstance(t, ast.Name | ast.Tuple) for t in statement.targets)
    if isinstance(statement, ast.AnnAssign | ast.AugAssign):
        return not isinstance(statement.target, ast.Name)
    return True


def _is_harmless(decorator: ast.expr) -> bool:
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    name = getattr(decorator, "attr", getattr(decorator, "id", None))
    return name in HARMLESS


# --- From one definition to the next ----------------------------------------------


def _references(module: _Module, statement: ast.stmt) -> set[Target]:
    """All that a statement refers to by name, in its own module and elsewhere.

    What looks up names at run time may refer to anything in its module.
    """
    nodes = list(ast.walk(statement))
    names = _free_names(module.text(statement))
    attributes, bare = _attributes(nodes)
    local: dict[str, list[Target]] = {}
    for name, target in module.imported(nodes):
        local.setdefault(name, []).append(target)
    targets: set[Target] = set()
    by_name = attributes.get("importlib", set()) | attributes.get("sys", set())
    if names & DYNAMIC or by_name & {"import_module", "modules"}:
        targets.add((module.name, None))
    for name in names | local.keys():
        if name in names and name in module.bindings:
            targets.add((module.name, name))
        for target in [*local.get(name, ()), *module.imports.get(name, ())]:
            origin, item = _resolve(*target)
            if item is None and name in attributes and name not in bare:
                targets |= {_resolve(origin, each) for each in attributes[name]}
            else:
                targets.add((origin, item))
    return targets


def _resolve(origin: str, name: str | None) -> Target:
    """``from origin import name``: the submodule of that name, if it is one."""
    if name is not None and _is_ours(origin) and (module := _load(origin)):
        defined = name in module.bindings or name in module.imports
        if not defined and _file(f"{origin}.{name}") is not None:
            return f"{origin}.{name}", None
    return origin, name


def _free_names(source: str) -> set[str]:
    """The global names that some source refers to, by Python's own scoping rules."""
    table = symtable.symtable(source, "<source>", "exec")
    names = {item.get_name() for item in table.get_symbols() if item.is_referenced()}
    inner = list(table.get_children())
    while inner:
        table = inner.pop()
        inner += table.get_children()
        names |= {item.get_name() for item in table.get_symbols() if item.is_global()}
    return names


def _attributes(nodes: list[ast.AST]) -> tuple[dict[str, set[str]], set[str]]:
    """The attributes that are read from each name, and the names that also stand
    alone, so that anything may be read from them."""
    attributes: dict[str, set[str]] = {}
    owners = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.setdefault(node.value.id, set()).add(node.attr)
            owners.add(node.value)
    names = (node for node in nodes if isinstance(node, ast.Name))
    return attributes, {node.id for node in names if node not in owners}


def _dump(statement: ast.stmt) -> str:
    """The syntax tree of a statement, without docstrings."""
    for node in ast.walk(statement):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]
    return ast.dump(statement)


# --- All that a builder can reach -------------------------------------------------

_lock = threading.RLock()  # the parser of CPython 3.11 fails in two threads at once
_modules: dict[str, tuple[bytes, _Module]] = {}
_statements: dict[int, tuple[ast.stmt, str, set[Target]]] = {}


def _file(name: str) -> Path | None:
    """The source file of a module, found without importing it; None if it has none."""
    if _is_ours(name):
        for folder in alignlab.__path__:
            path = Path(folder, *name.split(".")[1:])
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.exists():
                    return file
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return Path(file) if file.endswith(".py") else None


def _load(name: str) -> _Module | None:
    """A module as it was imported, or as its file is now if it has not been yet."""
    source, module = _modules.get(name, (None, None))
    if module is None or SOURCES.get(name) is not source:
        file = _file(name)
        if file is None:
            return None
        source = SOURCES.get(name) or SOURCES.setdefault(name, file.read_bytes())
        module = _Module(name, source, file)
        _modules[name] = source, module
    return module


class _Walk:
    """Collects everything that some definitions reach.

    Attributes:
        parts: the definitions, as text.
        sources: the source of each module that is involved.
        folders: where those modules of alignlab are.
    """

    def __init__(self, roots: Iterable[Target]):
        self.parts: set[str] = set()
        self.sources: dict[str, bytes] = {}
        self.folders: set[Path] = set()
        self._seen: set[Target] = set()
        self._todo = list(roots)
        self._own = {module for module, _ in self._todo}
        while self._todo:
            self._visit(*self._todo.pop())

    def _visit(self, name: str, item: str | None) -> None:
        if (name, item) in self._seen or name in PASSIVE:
            return
        self._seen.add((name, item))
        module = _load(name) if _is_ours(name) or name in self._own else None
        if module is None:
            self.parts.add(f"{name}:{item}")
            return
        self._import(module)
        if item not in module.bindings and item not in module.imports:
            self._todo += [(name, each) for each in (*module.bindings, *module.imports)]
        for statement in module.bindings.get(item, ()):
            self._include(module, statement)
        self._todo += [_resolve(*target) for target in module.imports.get(item, ())]

    def _import(self, module: _Module) -> None:
        """What runs when a module is imported, and when those that it imports are."""
        if module.name in self.sources:
            return
        self.sources[module.name] = SOURCES[module.name]
        if _is_ours(module.name):
            self.folders.add(module.folder)
        for statement in module.effects:
            self._include(module, statement)
        targets = {
            target for imported in module.imports.values() for target in imported
        }
        self._todo += [(origin, None) for origin, item in targets if item == "*"]
        names = {_resolve(*target)[0] for target in targets if _is_ours(target[0])}
        for name in names | {module.name.rpartition(".")[0]}:
            if name and _is_ours(name) and name not in PASSIVE:
                self._import(_load(name))

    def _include(self, module: _Module, statement: ast.stmt) -> None:
        if id(statement) not in _statements:
            references = _references(module, statement)
            _statements[id(statement)] = statement, _dump(statement), references
        _, dump, references = _statements[id(statement)]
        self.parts.add(f"{module.name}:{dump}")
        self._todo += references


def root_names(code: Iterable[ModuleType | Callable]) -> tuple[str, ...]:
    """Modules, and functions with those in their closures, as "module:name" each."""
    names: dict[str, None] = {}
    todo = list(code)
    while todo:
        item = todo.pop(0)
        while isinstance(item, functools.partial):
            todo += filter(_is_function, (*item.args, *item.keywords.values()))
            item = item.func
        name = _root_name(item)
        if name not in names:
            names[name] = None
            todo += _enclosed(item)
    return tuple(names)


def _root_name(item: ModuleType | Callable) -> str:
    if isinstance(item, ModuleType):
        return f"{item.__name__}:"
    item = inspect.unwrap(item)
    module = item.__module__ or ""
    code = getattr(item, "__code__", None)
    if isinstance(item, type) or (code is not None and _file(module) is not None):
        return f"{module}:{item.__qualname__.partition('.')[0]}"
    digest = "" if code is None else _code_digest(code)
    return f"{module}:{item.__qualname__}#{digest}"


def _enclosed(item: ModuleType | Callable) -> list[Callable]:
    """The functions that a function finds in its closure."""
    contents = []
    for cell in getattr(item, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # not filled yet
            contents.append(cell.cell_contents)
    return list(filter(_is_function, contents))


def _is_function(value: object) -> bool:
    return inspect.isroutine(value) or isinstance(value, functools.partial)


def _code_digest(code: CodeType) -> str:
    """For a function without a source file, such as one in a notebook's cell."""
    digest = hashlib.sha256(code.co_code + repr(code.co_names).encode())
    for item in code.co_consts:
        text = _code_digest(item) if isinstance(item, CodeType) else repr(item)
        digest.update(text.encode())
    return digest.hexdigest()


_hashes: dict[tuple[str, ...], tuple[str, dict, set, dict]] = {}


def code_hash(roots: Iterable[str]) -> str:
    """Hash of all that some definitions reach in alignlab and in their own modules, and
    of the data files beside those modules.

    Args:
        roots: "module:name" each, or "module:" for all of a module.
    """
    roots = tuple(roots)
    with _lock:
        if roots in _hashes:
            digest, sources, folders, data = _hashes[roots]
            same = all(SOURCES.get(name) is text for name, text in sources.items())
            if same and data == _data_files(folders):
                return digest
        named = [root.split(":") for root in roots if "#" not in root]
        walk = _Walk((module, name or None) for module, name in named)
        data = _data_files(walk.folders)
        digest = hashlib.sha256("\n".join([*roots, *sorted(walk.parts)]).encode())
        for file in sorted(data):
            digest.update(file.name.encode() + file.read_bytes())
        _hashes[roots] = digest.hexdigest(), walk.sources, walk.folders, data
        return digest.hexdigest()


def _data_files(folders: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Time and size of each data file in folders of code and in their plain folders."""
    states, todo = {}, list(folders)
    while todo:
        for path in todo.pop().iterdir():
            if path.name in NOT_DATA or path.name.startswith(("_", ".")):
                continue
            if path.is_dir() and not (path / "__init__.py").exists():
                todo.append(path)
            elif path.suffix in DATA_FILES:
                stat = path.stat()
                states[path] = stat.st_mtime_ns, stat.st_size
    return states


# --- Libraries and machine --------------------------------------------------------


def _default_dtype() -> str:
    torch = sys.modules.get("torch")
    return str(torch.get_default_dtype() if torch else "torch.float32")


# What else a result depends on; alignlab.models.base puts its device here.
SETTINGS: dict[str, Callable[[], str]] = {
    "device": lambda: "cpu",
    "dtype": _default_dtype,
}


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that results pass through, if they are installed."""
    from importlib import metadata

    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def environment() -> dict:
    """Library versions, device and default dtype."""
    settings = {name: read() for name, read in SETTINGS.items()}
    return {"versions": library_versions(), **settings}
