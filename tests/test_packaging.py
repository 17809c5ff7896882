"""The set-up files agree with each other, and the package keeps its layers.

Nothing here imports the code under test: files are read, and imports are seen by ast.
"""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "alignlab"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# What a reader is promised by name, wherever the set-up starts from.
PROMISED = {
    "jupyterlab",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "evaluate",
    "seaborn",
    "papermill",
}

# Lowest first. A module may import its own layer and those below it.
LAYERS = (
    {
        "objectives",
        "calibration.metrics",
        "calibration.checks",
        "calibration.stated",
        "errors",
        "imported",
        "",
    },
    {"provenance", "cache", "seeds", "files", "store"},
    {"data"},
    {"models"},
    {"world"},
    {"training", "ppo"},
    {"evaluation", "calibration"},
    {"study", "plots", "course"},
    {"chapters"},
    {"runs", "train", "cli", "course_cli", "results_cli", "__main__"},
)
STANDS_ALONE = ({"objectives"}, {"calibration.metrics", "calibration.checks"})

HEAVY = {"torch", "transformers", "trl", "datasets", "pandas", "matplotlib", "numpy"}


def requirements(extra: str | None = None) -> dict[str, Requirement]:
    """Requirements by canonical name; of an extra, with the extras it names."""
    project = PYPROJECT["project"]
    lines = (
        project["optional-dependencies"][extra] if extra else project["dependencies"]
    )
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.name == project["name"]:
            for inner in requirement.extras:
                found |= requirements(inner)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def constraints() -> dict[str, str]:
    """Version by canonical name, one ``name==version`` a line."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): version for name, version in pairs}


def conda_pip_lines() -> list[str]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [item for item in environment["dependencies"] if isinstance(item, dict)]
    return pip["pip"]


def test_conda_environment_brings_everything_promised():
    (editable,) = [line for line in conda_pip_lines() if line.startswith("--editable")]
    extras = re.fullmatch(r"--editable \.\[(.+)\]", editable).group(1).split(",")
    reachable = set(requirements())
    for extra in extras:
        reachable |= set(requirements(extra))
    assert reachable >= PROMISED
    assert reachable == set(requirements()) | set(requirements("dev"))


def test_conda_environment_adds_no_requirements_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    named = [item for item in environment["dependencies"] if isinstance(item, str)]
    assert [re.split("[<>=]", item)[0] for item in named] == ["python", "pip"]
    (python,) = [item for item in named if item.startswith("python")]
    wanted = Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier
    assert wanted.contains(python.split("=")[-1])
    assert conda_pip_lines()[0] == "--constraint constraints.txt"
    assert len(conda_pip_lines()) == 2


def test_dev_is_every_extra_and_all_is_what_a_reader_may_need():
    extras = PYPROJECT["project"]["optional-dependencies"]
    parts = {extra: set(requirements(extra)) for extra in extras}
    assert parts["dev"] == set().union(*parts.values())
    of_developers = parts["test"] | parts["bench"] | parts["site"]
    assert parts["dev"] == parts["all"] | of_developers
    assert parts["all"] >= PROMISED - set(requirements())


def test_every_requirement_has_a_tested_version_above_its_lower_bound():
    tested = constraints()
    for name, requirement in (requirements() | requirements("dev")).items():
        assert name in tested, f"constraints.txt pins no {name}"
        assert requirement.specifier.contains(tested[name], prereleases=True), (
            f"constraints.txt has {name} {tested[name]}, pyproject.toml {requirement}"
        )


# Releases that are known to break what works; pyproject.toml says how.
TOO_NEW = {"transformers": "<5.24", "soupsieve": "<3"}


def test_requirements_are_lower_bounds_not_pins():
    for name, requirement in (requirements() | requirements("dev")).items():
        clauses = {str(c) for c in requirement.specifier} - {TOO_NEW.get(name)}
        starts = {clause[:2] for clause in clauses}
        assert starts == {">="}, f"{requirement}: give a lower bound"


def test_constraints_are_plain_releases():
    for name, version in constraints().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_data_files_of_the_package_are_shipped():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["alignlab"]
    shipped = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    unshipped = [
        path.relative_to(ROOT)
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and path.suffix not in {".py", ".pyc"}
        and not any(part.startswith(".") for part in path.parts)
        and not shipped & {path, *path.parents}
    ]
    assert not unshipped, f"add them to package-data in pyproject.toml: {unshipped}"


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    lacking = [folder for folder in folders if not (folder / "__init__.py").exists()]
    assert not lacking, f"no __init__.py, so a wheel would leave them out: {lacking}"


def test_a_wheel_holds_the_notebooks(tmp_path):
    """They lie outside the package; setup.py copies them in."""
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base"]
    command += [str(tmp_path), "build_py", "--build-lib", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = tmp_path / "alignlab" / "notebooks"
    for folder in ("", "exercises"):
        ours = {path.name for path in (ROOT / "notebooks" / folder).glob("*.ipynb")}
        assert ours and ours == {path.name for path in (built / folder).glob("*.ipynb")}


def test_changelog_tells_of_this_version():
    version = re.search(
        r'^__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text("utf-8"), re.M
    ).group(1)
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("module", ["alignlab", "alignlab.cli"])
def test_import_is_light(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & HEAVY


def test_everything_imported_is_required():
    """Also what another requirement happens to bring along is named as our own."""
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    known = {canonicalize_name(name) for name in requirements() | requirements("dev")}
    for module in imported - set(sys.stdlib_module_names) - {"alignlab"}:
        names = {
            canonicalize_name(name) for name in distributions.get(module, [module])
        }
        assert names & known, f"pyproject.toml requires nothing that brings {module}"


def module_name(path: Path) -> str:
    """``alignlab/data/world.py`` -> ``data.world``; the package itself is ``""``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported_modules(source: str, name: str, is_package: bool) -> set[str]:
    """Modules of ours that this source imports anywhere in it, functions included.

    ``from alignlab.data import world`` may name a module or a function; the longer
    name is given, and its layer is that of its longest prefix.
    """
    package = ["alignlab", *name.split(".")] if name else ["alignlab"]
    package = package if is_package else package[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {
        full.removeprefix("alignlab").lstrip(".")
        for full in found
        if full.split(".")[0] == "alignlab"
    }


def prefixes(name: str) -> list[str]:
    """The module and the packages it is in, longest first, without the root."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def layer(name: str) -> int | None:
    for prefix in prefixes(name):
        for height, members in enumerate(LAYERS):
            if prefix in members:
                return height
    return None


def layer_faults(path: Path, source: str) -> list[str]:
    """What is wrong with the imports of one file, in words."""
    name, own_height = module_name(path), layer(module_name(path))
    if own_height is None:
        return [f"alignlab.{name}: give it a place in LAYERS"]
    homes = [home for home in STANDS_ALONE if home & set(prefixes(name))]
    faults = []
    for imported in imported_modules(source, name, path.name == "__init__.py"):
        height = layer(imported) or 0  # of the root itself: the version and the like
        if any(not home & set(prefixes(imported)) for home in homes):
            faults.append(f"alignlab.{name} stands alone but imports {imported}")
        elif height > own_height:
            faults.append(f"alignlab.{name} imports alignlab.{imported} from above")
    return faults


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_imports_go_down(path):
    assert not layer_faults(path, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("objectives/dpo.py", "from alignlab.errors import AlignlabError"),
        ("calibration/metrics.py", "from ..objectives import sft_loss"),
        ("calibration/checks.py", "from alignlab.errors import AlignlabError"),
        ("models/base.py", "def f():\n    from alignlab.world import gold"),
        ("models/base.py", "from .. import world"),
        ("data/__init__.py", "from ..training.sft import finetune"),
        ("models/base.py", "import alignlab.training.loop"),
        ("training/ppo/update.py", "from alignlab import evaluation"),
        ("evaluation/answers.py", "from alignlab.runs import record"),
        ("surprise.py", ""),
    ],
)
def test_the_layer_check_sees_faults(path, source):
    assert len(layer_faults(PACKAGE / path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("objectives/__init__.py", "from .dpo import dpo_loss"),
        ("objectives/__init__.py", "from alignlab.objectives.dpo import dpo_loss"),
        ("calibration/metrics.py", "from alignlab.calibration.checks import check"),
        ("models/base.py", "from alignlab import __version__\nimport torch"),
        ("training/sft.py", "from alignlab.training.loop import train"),
        ("training/sft.py", "from . import loop\nfrom ..models import base"),
        ("cli.py", "from alignlab import runs"),
    ],
)
def test_the_layer_check_lets_good_imports_pass(path, source):
    assert layer_faults(PACKAGE / path, source) == []


def test_commands_in_the_documents_are_make_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.M))
        assert named, f"{document} names no make target"
        assert named <= targets, f"{document}: make {named - targets}"


def test_ci_runs_the_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
