"""The engine of the checks: what a reader meets, whatever the exercise."""

import inspect
import itertools
import json
import subprocess
import sys
from importlib import import_module

import pytest

from alignlab.course import check, hint
from alignlab.course.checks import (
    CheckFailed,
    CheckResult,
    all_exercises,
    find_exercise,
    grade,
)
from alignlab.course.exercise import Exercise, Interpretation
from alignlab.course.running import place_of
from alignlab.errors import AlignlabError
from alignlab.objectives import sft_loss
from alignlab.runs.profiles import chapter_folders

FUNCTIONS = {n: t for n, t in all_exercises().items() if isinstance(t, Exercise)}


def pick(table, ids):
    return table.gather(-1, ids[..., None])[..., 0]


def log_probs(logits, ids):
    return pick(logits[:, :-1].log_softmax(-1), ids[:, 1:])


def loss_of(logits, ids, mask):
    return -(log_probs(logits, ids) * mask[:, 1:]).sum() / mask[:, 1:].sum()


def total(logits, ids, mask):
    return -(log_probs(logits, ids) * mask[:, 1:]).sum()


# --- What a reader meets ----------------------------------------------------------


def test_a_failed_check_raises_an_assertion_error_that_says_why():
    with pytest.raises(AssertionError, match="sign flipped: .*\n  Hint: ") as caught:
        check("00.1", lambda z, x: -log_probs(z, x))
    assert isinstance(caught.value, CheckFailed) and not caught.value.result.passed


def test_the_score_is_the_share_of_cases_that_are_right():
    # Wrong where the first token is masked in, right in the three other cases, and the
    # gradient is not asked for before the values are right.
    result = grade("01.2", lambda z, x, m: total(z, x, m) / m.sum())
    assert (result.right, result.cases, result.score) == (3, 5, 3 / 5)
    assert grade("01.2", lambda z, x, m: loss_of(z, x, m).item()).score == 4 / 5
    assert grade("01.2", loss_of).score == 1
    assert grade("01.2", sft_loss).score == 0  # right, but not the reader's own


def test_an_exception_is_told_with_its_line_and_the_shapes():
    message = grade("00.1", lambda z, x: z.no_such_thing).message
    assert message.startswith("raised AttributeError: ")
    assert "no_such_thing).message`" in message
    assert message.endswith("logits (3, 7, 11) float64, input_ids (3, 7) int64")


def test_an_exception_names_small_arguments_by_value():
    message = grade("01.5", lambda sizes: sizes).message
    assert "raised TypeError" in message and "'poems': 12" in message
    assert message.endswith("temperature 2.0")


def test_the_result_in_place_of_the_function_is_told_apart():
    result = grade("01.1", [0, 0, 1])
    assert not result.passed
    assert 'check("01.1", my_completion_mask)' in result.message


def test_an_interrupt_is_not_an_answer():
    def interrupted(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade("00.1", interrupted)


@pytest.mark.parametrize("wrong, near", [("00.01", "00.1"), ("01.03", "01.3")])
def test_an_unknown_exercise_is_an_error_with_suggestions(wrong, near):
    with pytest.raises(AlignlabError, match=f'"{near}"') as caught:
        check(wrong, log_probs)
    assert "01.5" in caught.value.remedy
    with pytest.raises(AlignlabError, match="no exercise 7"):
        check(7, log_probs)


def test_results_are_text_html_and_json():
    result = CheckResult("00.1", False, 1, 4, "a < b, see `mask[:, 1:]`", "shift")
    assert repr(result) == (
        "\u2717 Exercise 00.1: a < b, see `mask[:, 1:]`\n  Hint: shift"
    )
    assert "a &lt; b, see <code>mask[:, 1:]</code>" in result._repr_html_()
    assert CheckResult(**json.loads(json.dumps(result.to_dict()))) == result
    assert "Hint" not in CheckResult("00.1", True, 4, 4, "Right.")._repr_html_()


def test_a_notebook_shows_a_box_and_one_line_for_a_traceback():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    try:
        with capture_output() as shown:
            cell = 'from alignlab.course import check\ncheck("01.1", lambda p, x: [])'
            outcome = shell.run_cell(cell)
    finally:
        InteractiveShell.clear_instance()
    assert isinstance(outcome.error_in_exec, AssertionError)
    assert "<strong" in shown.outputs[0].data["text/html"]
    assert shown.stdout.count("CheckFailed: exercise 01.1: ") == 1
    assert "Traceback" not in shown.stdout + shown.stderr


def test_importing_the_checks_imports_no_torch():
    code = "import sys, alignlab.course; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_exercises_of_every_chapter_are_found_by_their_number():
    chapters = {number[:2] for number in all_exercises()}
    assert chapters == set(chapter_folders())
    for number, folder in chapter_folders().items():
        module = import_module(f"alignlab.chapters.{folder.name}.exercises")
        assert all(
            find_exercise(name) is task for name, task in module.EXERCISES.items()
        )
        assert {name[:2] for name in module.EXERCISES} == {number}


# --- Hints ------------------------------------------------------------------------


def test_hints_are_uncovered_one_at_a_time():
    first, second = hint("00.2"), hint("00.2", 2)
    assert repr(first).startswith("Hint 1 of 3, 00.2: What does a small temperature")
    assert repr(first).endswith('Next: hint("00.2", 2)')
    assert second.text != first.text and "Next" not in repr(hint("00.2", 3))
    assert "<code>" in hint("00.2", 3)._repr_html_()
    for missing in (0, 4, "2"):
        with pytest.raises(AlignlabError, match="no hint") as caught:
            hint("00.2", missing)
        assert "It has 3" in caught.value.remedy


def test_a_wrong_answer_is_told_the_first_hint_only():
    result = grade("00.1", lambda z, x: -log_probs(z, x))
    assert result.hint == f'{hint("00.1").text} (More: `hint("00.1", 2)`.)'


def test_an_interpretation_has_hints_and_no_check():
    questions = [n for n, t in all_exercises().items() if isinstance(t, Interpretation)]
    assert len(questions) == len(chapter_folders())
    for number in questions:
        assert hint(number).text
        with pytest.raises(AlignlabError, match="a person reads it"):
            check(number, "my answer")


# --- What a message is made of ----------------------------------------------------


def stub(*args):
    raise NotImplementedError()


@pytest.mark.parametrize("number", FUNCTIONS)
def test_an_exercise_that_is_not_answered_says_what_to_write(number):
    result = grade(number, stub)
    assert result.message.startswith("not answered yet: write my_")
    assert result.score == 0 and not result.passed


def test_the_cases_tell_every_two_known_mistakes_apart():
    """No two known mistakes of an exercise give the same outputs wherever both show."""
    alike = []
    for number, task in FUNCTIONS.items():
        tables = [task.mistakes(case) for case in task.cases()]
        names = dict.fromkeys(name for table in tables for name in table)
        for one, other in itertools.combinations(names, 2):
            both = [table for table in tables if one in table and other in table]
            if both and all(task.is_right(t[one][0], t[other][0]) for t in both):
                alike.append((number, one, other))
    assert not alike


@pytest.mark.parametrize("number", FUNCTIONS)
def test_the_library_functions_that_an_answer_may_not_call_are_there(number):
    for name in FUNCTIONS[number].library:
        module, _, function = name.rpartition(".")
        code = inspect.unwrap(getattr(import_module(module), function)).__code__
        assert (code.co_filename, code.co_name) == place_of(name)
