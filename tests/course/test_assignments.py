"""The assignment sheets: their code names what there is, and their points add up.
``pytest -m series`` also runs the code."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

import alignlab

FOLDER = Path(alignlab.__file__).parents[1] / "docs/assignments"
SHEETS = ["calibrate_a_model_you_aligned", "find_the_reward_hack"]


def read(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def code_of(name: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", read(name), re.DOTALL))


@pytest.mark.parametrize("name", SHEETS)
def test_what_the_code_imports_is_there(name):
    imports = [
        n for n in ast.parse(code_of(name)).body if isinstance(n, ast.ImportFrom)
    ]
    assert imports
    for node in imports:
        module = import_module(node.module)
        for alias in node.names:
            assert hasattr(module, alias.name) or import_module(
                f"{node.module}.{alias.name}"
            )


@pytest.mark.parametrize("name", SHEETS)
def test_points_add_up_and_every_task_has_a_rubric(name):
    sheet = read(name)
    tasks = re.findall(r"\*\*(\d)\. [^*]+\((\d) points\)\*\*", sheet)
    assert [int(task) for task, _ in tasks] == [1, 2, 3, 4, 5]
    assert sum(int(points) for _, points in tasks) == 20
    assert "| **Points** | 20 |" in sheet
    assert re.findall(r"^\| (\d) \|", sheet, re.MULTILINE) == ["1", "2", "3", "4", "5"]


@pytest.mark.series
@pytest.mark.parametrize("name", SHEETS)
def test_the_code_runs(name):
    exec(compile(code_of(name), f"{name}.md", "exec"), {})
