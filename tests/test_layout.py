"""The house keeps its shape: a chapter is one folder, no two rooms lean on each other,
and no file grows beyond what can be read from top to bottom."""

from itertools import combinations
from pathlib import Path

import pytest

from tests.test_packaging import PACKAGE, imported_modules, module_name

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks" / "source"
CHAPTERS = sorted(path.stem.partition("_")[2] for path in NOTEBOOKS.glob("*.py"))
LONGEST = 600  # lines; what is longer tells more than one story
SHARED = "artifacts"  # the one module of a chapter that other chapters may import
FILES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    source = path.read_text(encoding="utf-8")
    return imported_modules(source, module_name(path), path.name == "__init__.py")


def room(module: str) -> str:
    """The folder of the package that a module is in: a chapter is a room of its own."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "chapters" else parts[0]


def room_faults(imports: dict[str, set[str]]) -> list[str]:
    """Rooms that import each other, from every module's imports."""
    arrows = {
        (room(name), room(other)) for name, all_ in imports.items() for other in all_
    }
    rooms = sorted({end for arrow in arrows for end in arrow if end})
    return [
        f"{one} and {other} import each other"
        for one, other in combinations(rooms, 2)
        if (one, other) in arrows and (other, one) in arrows
    ]


def chapter_faults(name: str, imports: set[str]) -> list[str]:
    """What a chapter's module may not import: another chapter, except its artifacts."""
    own = name.split(".")[:2]
    return [
        f"{name} imports {other}"
        for other in imports
        if (parts := other.split("."))[0] == "chapters" and len(parts) > 1
        if parts[:2] != own and SHARED not in parts[2:3]
    ]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_one_folder(chapter):
    folder = PACKAGE / "chapters" / chapter
    names = {path.name for path in folder.iterdir()}
    wanted = {"runs.py", "analysis.py", "figures.py", "exercises.py"}
    assert wanted | {"claims.yaml", "profiles.yaml"} <= names


def test_chapters_and_notebooks_have_the_same_names():
    folders = {path.parent.name for path in PACKAGE.glob("chapters/*/__init__.py")}
    assert folders == set(CHAPTERS)


def test_a_chapter_imports_other_chapters_artifacts_only():
    faults = [
        fault
        for path in FILES
        if room(module_name(path)).startswith("chapters.")
        for fault in chapter_faults(module_name(path), imports_of(path))
    ]
    assert not faults, "\n".join(faults)


def test_no_two_rooms_import_each_other():
    faults = room_faults({module_name(path): imports_of(path) for path in FILES})
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_can_be_read_in_one_go(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{lines} lines; split it where its second story begins"


def test_the_chapter_check_sees_faults():
    name = "chapters.dpo.runs"
    assert chapter_faults(name, {"chapters.ppo.runs"})
    assert chapter_faults(name, {"chapters.ppo"})
    assert not chapter_faults(name, {"chapters.ppo.artifacts.ppo_arm", "study.arms"})
    assert not chapter_faults(name, {"chapters.dpo.analysis"})


def test_the_room_check_sees_faults():
    circle = {"world.gold": {"data.sources"}, "data.sources": {"world.facts"}}
    assert room_faults(circle) == ["data and world import each other"]
    chapters = {
        "chapters.a.runs": {"chapters.b.artifacts"},
        "chapters.b.runs": {"chapters.a.artifacts"},
    }
    assert room_faults(chapters)
    assert not room_faults({"world.gold": {"data.sources"}})
