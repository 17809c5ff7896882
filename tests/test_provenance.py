"""What a result depends on: code as imported and reached, data, libraries, device."""

import importlib
import itertools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import alignlab
from alignlab import imported, provenance

ROOT = Path(__file__).parents[1]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Modules that count as part of alignlab, from a folder of this test."""
    monkeypatch.setattr(alignlab, "__path__", [*alignlab.__path__, str(tmp_path)])
    times = itertools.count(1)

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path / f"{name}.py"
            path.write_text(textwrap.dedent(source))
            os.utime(path, (next(times),) * 2)  # no stale bytecode

    def clear():
        """As in a new process."""
        importlib.invalidate_caches()
        provenance._hashes.clear()
        for name in [n for n in imported.SOURCES if n.startswith("alignlab.zz")]:
            del imported.SOURCES[name]
        for name in [n for n in sys.modules if n.startswith("alignlab.zz")]:
            del sys.modules[name]
            delattr(alignlab, name.removeprefix("alignlab."))

    def hashed(root="zz_top:"):
        clear()
        return provenance.code_hash([f"alignlab.{root}"])

    yield SimpleNamespace(write=write, hashed=hashed, clear=clear, folder=tmp_path)
    clear()


TOP = """
    def top(x):
        return x + 1
    """


def test_comments_docstrings_and_layout_do_not_count(library):
    library.write(zz_top=TOP)
    before = library.hashed()
    library.write(
        zz_top='''
        """What this is for."""
        # How it came about.
        def top(x):
            """One more."""

            return (x
                    + 1)  # one
        '''
    )
    assert library.hashed() == before


@pytest.mark.parametrize(
    "changed",
    [
        "def top(x):\n    return x + 2",
        "def top(x, y=0):\n    return x + 1",
        "LIMIT = 3\ndef top(x):\n    return x + 1",
        "def top(x):\n    'One more.'\n    return x + 1.0",
        "import numpy\ndef top(x):\n    return x + 1",
    ],
)
def test_what_the_code_does_counts(library, changed):
    library.write(zz_top=TOP)
    before = library.hashed()
    library.write(zz_top=changed)
    assert library.hashed() != before


@pytest.mark.parametrize(
    "line",
    [
        "import alignlab.zz_middle",
        "from alignlab import zz_middle",
        "from alignlab.zz_middle import middle",
        "from .zz_middle import middle",
        "def top():\n    from alignlab.zz_middle import middle",
    ],
)
def test_what_an_import_of_an_import_does_counts(library, line):
    library.write(zz_top=line, zz_middle="from alignlab.zz_deep import deep as middle")
    library.write(zz_deep="deep = 1", zz_other="other = 1")
    before = library.hashed()
    library.write(zz_other="other = 2")
    assert library.hashed() == before, "nobody imports this one"
    library.write(zz_deep="deep = 2")
    assert library.hashed() != before


def test_a_circle_of_imports_ends(library):
    library.write(zz_top="import alignlab.zz_deep", zz_deep="import alignlab.zz_top")
    before = library.hashed()
    library.write(zz_deep="import alignlab.zz_top\nx = 1")
    assert library.hashed() != before


def test_what_carries_results_about_does_not_count(library, monkeypatch):
    library.write(zz_top="import alignlab.zz_deep", zz_deep="import alignlab.zz_last")
    library.write(zz_last="last = 1")
    monkeypatch.setattr(provenance, "PASSIVE", {"alignlab.zz_deep"})
    before = library.hashed()
    library.write(zz_deep="deep = 2", zz_last="last = 2")
    assert library.hashed() == before
    monkeypatch.undo()
    assert {"alignlab.cache", "alignlab.errors"} <= provenance.PASSIVE


# --- Only what is reached counts --------------------------------------------------

BUILDER = """
    from alignlab import zz_tools
    from alignlab.zz_tools import Base, TABLE, later as soon

    RATE = 2

    def build(x, how=RATE):
        def inner(y):
            return helper(y) + zz_tools.used(x)
        return inner(x)

    def helper(y):
        from alignlab.zz_deep import lazy
        return [lazy(z) for z in range(y)]

    def other(x):
        return zz_tools.unused(x) + len(TABLE) + soon()

    class Child(Base):
        pass

    def make():
        return Child()

    def pick(name):
        return getattr(zz_tools, name)

    def local(unused):
        used = 3
        return [build for build in unused], used

    def listed(name):
        return TABLE[name]
    """
TOOLS = """
    def used(x):
        return x + SHIFT

    def unused(x):
        return x

    def later():
        return 1

    SHIFT = 1

    class Base:
        def method(self):
            return unused(2)

    def register(function):
        TABLE[function.__name__] = function
        return function

    TABLE = {}

    @register
    def entry():
        return deeper()

    def deeper():
        return 0
    """
DEEP = """
    def lazy(z):
        return z

    def never(z):
        return z
    """


@pytest.mark.parametrize(
    "root, file, old, new, counts",
    [
        ("build", "zz_tools", "return x + SHIFT", "return x - SHIFT", True),
        ("build", "zz_tools", "SHIFT = 1", "SHIFT = 2", True),
        ("build", "zz_deep", "def lazy(z):\n", "def lazy(z, y=0):\n", True),
        ("build", "zz_top", "RATE = 2", "RATE = 3", True),
        ("build", "zz_top", "helper(y):", "helper(y, z=0):", True),
        ("build", "zz_deep", "def never(z):\n", "def never(z, y=0):\n", False),
        ("build", "zz_tools", "def unused(x):", "def unused(x, y=0):", False),
        ("build", "zz_top", "def other(x):", "def other(x, y=0):", False),
        ("build", "zz_tools", "def later():", "def later(x=0):", False),
        ("other", "zz_tools", "def unused(x):", "def unused(x, y=0):", True),
        ("other", "zz_tools", "def later():", "def later(x=0):", True),
        ("other", "zz_tools", "def used(x):", "def used(x, y=0):", False),
        # A method of a base class; what a registry holds; what is looked up by name.
        ("make", "zz_tools", "def unused(x):", "def unused(x, y=0):", True),
        ("make", "zz_tools", "def used(x):", "def used(x, y=0):", False),
        ("listed", "zz_tools", "return 0", "return 1", True),
        ("pick", "zz_tools", "def used(x):", "def used(x, y=0):", True),
        # Local names shadow those of the module.
        ("local", "zz_top", "RATE = 2", "RATE = 3", False),
    ],
)
def test_what_the_builder_reaches_counts(library, root, file, old, new, counts):
    sources = {"zz_top": BUILDER, "zz_tools": TOOLS, "zz_deep": DEEP}
    library.write(**sources)
    before = library.hashed(f"zz_top:{root}")
    assert sources[file].count(old) == 1
    library.write(**{file: sources[file].replace(old, new)})
    assert (library.hashed(f"zz_top:{root}") != before) is counts


@pytest.mark.parametrize(
    "statement",
    ["TABLE['more'] = 1", "print('imported')", "if SHIFT:\n        TABLE.clear()"],
)
def test_what_an_import_does_counts_whatever_is_used_of_the_module(library, statement):
    library.write(zz_top=BUILDER, zz_tools=TOOLS, zz_deep=DEEP)
    before = library.hashed("zz_top:make")
    library.write(zz_deep=DEEP, zz_tools=f"{TOOLS}\n    {statement}\n")
    assert library.hashed("zz_top:make") != before


@pytest.mark.parametrize("line", ["eval('1')", "globals()", "sys.modules[__name__]"])
def test_what_looks_up_names_depends_on_its_whole_module(library, line):
    source = f"import sys\ndef build():\n    return {line}\n"
    library.write(zz_top=source)
    before = library.hashed("zz_top:build")
    library.write(zz_top=source + "def other():\n    pass\n")
    assert library.hashed("zz_top:build") != before


def test_data_files_beside_a_module_count(library):
    (library.folder / "zz").mkdir()
    (library.folder / "zz" / "__init__.py").write_text("")
    (library.folder / "zz" / "world.py").write_text("facts = 1")
    library.write(zz_top="from alignlab.zz import world")
    data = library.folder / "zz" / "facts.yaml"
    data.write_text("a: 1")
    before = library.hashed()
    (library.folder / "zz" / "claims.yaml").write_text("a: 1")
    assert library.hashed() == before, "claims make no result"
    data.write_text("a: 2")
    assert library.hashed() != before
    assert provenance.code_hash(["alignlab.zz_top:"]) != before, "without clearing"


def test_roots_are_functions_with_their_closures_and_modules():
    def outer(function):
        def build(folder):
            return function(folder)

        return build

    name = f"{__name__}:"
    build = outer(first)
    expected = (
        f"{name}test_roots_are_functions_with_their_closures_and_modules",
        f"{name}first",
    )
    assert provenance.root_names([build]) == expected
    assert provenance.root_names([ModuleType("alignlab.zz")]) == ("alignlab.zz:",)
    assert provenance.root_names([first, first]) == (f"{name}first",)


def first(folder):
    return folder


def test_a_function_without_a_file_counts_by_what_it_does():
    def root(body):
        names = {"__name__": "__main__"}
        exec(f"def f(x):\n    return {body}", names)
        names["f"].__module__ = "a_notebook"
        return provenance.root_names([names["f"]])

    assert root("x + 1") == root("x + 1") != root("x + 2")


# --- Code as imported -------------------------------------------------------------


def test_an_edit_during_the_run_does_not_count_until_it_is_imported(library):
    library.write(zz_top="from alignlab.zz_deep import deep", zz_deep="deep = 1")
    library.clear()
    importlib.import_module("alignlab.zz_top")
    before = provenance.code_hash(["alignlab.zz_top:"])
    library.write(zz_deep="deep = 2")
    assert provenance.code_hash(["alignlab.zz_top:"]) == before
    deep = importlib.reload(sys.modules["alignlab.zz_deep"])
    assert deep.deep == 2
    assert provenance.code_hash(["alignlab.zz_top:"]) != before


def test_a_module_that_is_edited_before_it_is_imported_counts_as_it_was_imported(
    library,
):
    library.write(zz_top="def top():\n    from alignlab.zz_deep import deep")
    library.write(zz_deep="deep = 1")
    before = library.hashed()
    library.write(zz_deep="deep = 2")
    assert importlib.import_module("alignlab.zz_deep").deep == 2
    assert provenance.code_hash(["alignlab.zz_top:"]) != before


# --- The code of this package -----------------------------------------------------


def reached(root):
    """Names of alignlab that a definition reaches."""
    module, _, name = root.partition(":")
    walk = provenance._Walk([(module, name)])
    return {f"{m}:{n}" for m, n in walk._seen if m.startswith("alignlab")}


def test_the_sft_policy_depends_on_the_loss_and_not_on_the_sampler():
    policy = reached("alignlab.study.tuning:sft_policy")
    assert "alignlab.training.sft:finetune" in policy
    assert not [name for name in policy if name.startswith("alignlab.models.sampler")]
    replies = reached("alignlab.study.artifacts:candidates")
    assert "alignlab.models.sampler:complete" in replies


@pytest.mark.parametrize(
    "edited, root, counts",
    [
        ("models/sampler.py", "study.tuning:sft_policy", False),
        ("models/sampler.py", "study.artifacts:candidates", True),
        ("training/sft.py", "study.tuning:sft_policy", True),
        ("models/positions.py", "study.tuning:sft_policy", True),
        ("world/relations.yaml", "study.tuning:sft_policy", True),
        ("chapters/dpo/claims.yaml", "chapters.dpo.runs:", False),
    ],
)
def test_an_edit_of_this_package_changes_what_uses_it(tmp_path, edited, root, counts):
    """Every constant of a module is changed, in a copy of the package."""
    package = tmp_path / "alignlab"
    for path in (ROOT / "alignlab").rglob("*"):
        if path.suffix in {".py", ".yaml", ".json"} and "weights" not in path.parts:
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    before = hash_of(tmp_path, root)
    text = (package / edited).read_text()
    edit = text.replace("return ", "return 0 or ") if edited.endswith("py") else "x: 1"
    assert edit != text
    (package / edited).write_text(edit)
    assert (hash_of(tmp_path, root) != before) is counts


def hash_of(folder, root):
    code = f"from alignlab import provenance\nprint(provenance.code_hash([{root!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code.replace(repr(root), repr(f"alignlab.{root}"))],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hashing_needs_no_import_and_takes_a_second_at_most():
    code = (
        "import sys, time\nfrom alignlab import provenance\n"
        "began = time.process_time()\n"
        "provenance.code_hash(['alignlab.chapters.dpo.runs:'])\n"
        "assert 'torch' not in sys.modules\nprint(time.process_time() - began)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(done.stdout) < 5, done.stderr


def test_threads_can_hash_at_the_same_time():
    code = """
        import sys, threading
        sys.setswitchinterval(1e-5)
        from alignlab import provenance
        roots = ["dpo", "ppo", "side_effects", "recalibration"]
        hashes, errors = [], []
        def run(name):
            try:
                hashes.append(provenance.code_hash([f"alignlab.chapters.{name}.runs:"]))
            except BaseException as error:
                errors.append(repr(error))
        threads = [threading.Thread(target=run, args=[n]) for n in roots * 2]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert not errors, errors
        assert len(set(hashes)) == len(roots)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


# --- Libraries and machine --------------------------------------------------------


def test_the_environment_names_libraries_device_and_dtype():
    torch = pytest.importorskip("torch")
    made = provenance.environment()
    installed = made["versions"]["torch"].partition("+")[0]
    assert installed == torch.__version__.partition("+")[0]  # "+cu130" may be missing
    assert set(made["versions"]) == set(provenance.LIBRARIES)
    assert (made["device"], made["dtype"]) == ("cpu", "torch.float32")
    assert json.loads(json.dumps(made)) == made


def test_the_device_is_the_one_in_use(monkeypatch):
    base = importlib.import_module("alignlab.models.base")
    monkeypatch.setattr(base, "_device", "cuda:1")
    assert provenance.environment()["device"] == "cuda:1"


def test_before_torch_is_imported_the_environment_is_the_same():
    code = (
        "import json, sys\nfrom alignlab import provenance\n"
        "before = provenance.environment()\nassert 'torch' not in sys.modules\n"
        "import alignlab.models.base, torch\nassert provenance.environment() == before"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_dtype_is_torchs_default():
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    try:
        assert provenance.environment()["dtype"] == "torch.float64"
    finally:
        torch.set_default_dtype(torch.float32)
