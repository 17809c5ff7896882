"""Random streams: the same name the same numbers, any other name others."""

import re
import string
from pathlib import Path

import numpy as np
import pytest

from alignlab.seeds import stream, torch_seed

PACKAGE = Path(__file__).resolve().parents[1] / "alignlab"


def test_the_same_name_draws_the_same_numbers():
    first, again = (stream(3, "pairs", 1).random(8) for _ in range(2))
    assert np.array_equal(first, again)


def test_streams_are_distinct_over_10_000_names():
    """Random names, numbers and seeds, with those that padding with zeros would mix."""
    random = np.random.default_rng(0)
    letters = np.array(list(string.ascii_lowercase))
    wanted = {(seed, "a", *[0] * zeros) for seed in range(4) for zeros in range(4)}
    while len(wanted) < 10_000:
        name = "".join(letters[random.integers(26, size=random.integers(1, 4))])
        numbers = random.integers(3, size=random.integers(4)).tolist()
        wanted.add((int(random.integers(5)), name, *numbers))
    drawn = {stream(*key).integers(2**63) for key in wanted}
    assert len(drawn) == len(wanted)


def test_a_stream_is_not_its_seed_padded():
    plain = np.random.default_rng(5).random(4)
    assert not np.array_equal(stream(5, "").random(4), plain)
    assert not np.array_equal(stream(5, "", 0).random(4), stream(5, "").random(4))


def test_numbers_do_not_run_into_the_name():
    assert torch_seed(0, "a", 12) != torch_seed(0, "a1", 2)
    assert torch_seed(0, "a", 1, 2) != torch_seed(0, "a", 12)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed is -1"):
        stream(-1, "pairs")


@pytest.mark.parametrize("call", [r"default_rng\(", r"manual_seed\((?!torch_seed)"])
def test_everybody_draws_from_a_named_stream(call):
    """All but what is about the shipped weights, a user's seed or an exercise."""
    others = ("seeds.py", "models/base.py", "calibration/", "course/", "runs/benchmark")
    strays = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not str(path.relative_to(PACKAGE)).startswith(others)
        if path.name != "exercises.py"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if re.search(call, line)
    ]
    assert not strays, "\n".join(strays)
