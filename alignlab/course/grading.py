"""Grading in a Python of its own, where nothing that a notebook has redefined counts:
not ``check``, not a function of torch, nothing of alignlab. A locked cell runs this
file afresh, too, whatever stands in ``sys.modules``::

    import alignlab, runpy

    grading = runpy.run_path(f"{alignlab.__path__[0]}/course/grading.py")
    grading["check"]("03.2", my_floors)

That keeps out what is redefined in a notebook, and answers that crash or never end. It
is no wall: who writes code that attacks the grader itself needs a container.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SECONDS = 120.0  # in all, to start, import torch and run the answer; then it is killed
FAILED = {"passed": False, "right": 0, "cases": 1, "score": 0.0, "hint": ""}


def check(exercise: str, answer: Callable) -> dict:
    """The result of ``grade``, if the answer is right.

    Raises:
        AssertionError: with the message, if it is wrong.
        ValueError: if there is no such exercise.
    """
    result = grade(exercise, answer)
    if not result["passed"]:
        raise AssertionError(f"exercise {exercise}: {result['message']}")
    return result


def grade(exercise: str, answer: Callable, seconds: float = SECONDS) -> dict:
    """What the check says of an answer, in a Python that knows nothing of this one.

    Args:
        exercise: the number in the exercise's heading.
        answer: the function, which goes there with everything that it refers to.
        seconds: after these it is stopped. Higher waits longer for a slow machine.

    Returns:
        The fields of ``CheckResult`` and its ``score``, the share of cases that are
        right, for partial credit.

    Raises:
        ValueError: if there is no such exercise.
    """
    import cloudpickle

    try:
        sent = cloudpickle.dumps((exercise, cloudpickle.dumps(answer)))
    except Exception as error:
        return _failed(exercise, f"cannot be taken out of the notebook: {error}")
    command = [sys.executable, "-P", str(Path(__file__).resolve())]
    try:
        done = subprocess.run(command, input=sent, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return _failed(exercise, f"takes longer than {seconds:g} seconds")
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not lines:
        code = done.returncode
        return _failed(exercise, f"ended the Python that ran it (exit code {code})")
    result = json.loads(lines[-1])
    if "error" in result:
        raise ValueError(result["error"])
    return result


def _failed(exercise: str, message: str) -> dict:
    return {"exercise": exercise, **FAILED, "message": message[:300]}


def _grade_what_is_sent() -> None:
    """In the new Python: reads an exercise and an answer, and prints the result. What
    the answer prints itself goes to stderr."""
    import contextlib
    import pickle

    package = Path(__file__).resolve().parents[2]
    sys.path[:] = [str(package), *sys.path, "."]  # a reader's own modules come last
    from alignlab.course import checks
    from alignlab.errors import AlignlabError

    exercise, pickled = pickle.load(sys.stdin.buffer)
    try:
        checks.find_exercise(exercise)
    except AlignlabError as error:
        print(json.dumps({"error": str(error)}))
        return
    with contextlib.redirect_stdout(sys.stderr):
        try:
            result = checks.grade(exercise, pickle.loads(pickled))
            graded = result.to_dict() | {"score": result.score}
        except ImportError as error:
            graded = _failed(exercise, f"needs a module that is not there: {error}")
    print(json.dumps(graded))


if __name__ == "__main__":
    _grade_what_is_sent()
