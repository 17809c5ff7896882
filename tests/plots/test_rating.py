"""Ratings are blind, survive the kernel, and say what the model that made them says."""

import json
import re

import numpy as np
import pytest
from scipy.special import expit

from alignlab.errors import AlignlabError
from alignlab.plots import rating
from alignlab.plots.rating import (
    RatingSession,
    pairs_to_rate,
    simulate,
)

NAMES = ("SFT", "best of 8")


def made(n=20, of=30, seed=0, names=NAMES):
    prompts = [f"Tell me about {i}." for i in range(of)]
    plain, better = [f"plain {i}" for i in range(of)], [f"good {i}" for i in range(of)]
    return pairs_to_rate(prompts, plain, better, names, seed, n)


def side_of(pair, name):
    return ("left", "right")[pair.sides.index(name)]


def rated(session, wins, losses=0, ties=0, skips=0):
    """The second system wins and loses so often, whatever side it is on."""
    for name in ["best of 8"] * wins + ["SFT"] * losses:
        session.rate(side_of(session.current, name))
    for choice in ["tie"] * ties + ["skip"] * skips:
        session.rate(choice)
    return session


# --- Pairs ----------------------------------------------------------------------------


def test_each_side_holds_the_reply_of_the_system_it_is_said_to_hold():
    for pair in made():
        number = re.search(r"\d+", pair.prompt)[0]
        said = dict(zip(pair.sides, (pair.left, pair.right)))
        assert said == {"SFT": f"plain {number}", "best of 8": f"good {number}"}


@pytest.mark.parametrize("n", [20, 7])
def test_each_system_is_on_the_left_in_half_of_the_pairs(n):
    for seed in range(5):
        left = sum(pair.sides[0] == "SFT" for pair in made(n, seed=seed))
        assert left in (n // 2, n - n // 2)


def test_the_seed_draws_prompts_order_and_sides():
    assert made(seed=1) == made(seed=1)
    assert len({pair.prompt for pair in made()}) == 20
    assert [p.prompt for p in made(seed=1)] != [p.prompt for p in made(seed=2)]
    sides = [[pair.sides for pair in made(seed=seed)] for seed in (1, 2)]
    assert sides[0] != sides[1]


def test_a_printed_pair_does_not_give_its_sides_away():
    pair, other = (
        rating.BlindPair("p", "x", "y", NAMES, swapped) for swapped in (False, True)
    )
    assert repr(pair) == repr(other) and pair.sides != other.sides


def test_equal_replies_are_left_out():
    pairs = pairs_to_rate(["a", "b", "c"], ["x", "y", "z"], ["x", "Y", "Z"], n=9)
    assert {pair.prompt for pair in pairs} == {"b", "c"}


@pytest.mark.parametrize(
    "wrong, told",
    [
        (dict(replies_b=["x"]), "2 prompts, 2 replies_a and 1 replies_b"),
        (dict(names=("A", "A")), r"names are \('A', 'A'\)"),
        (dict(n=0), "n is 0"),
        (dict(replies_b=["x", "y"]), "nothing is to be rated"),
    ],
    ids=["lengths", "names", "n", "equal"],
)
def test_pairs_that_cannot_be_made_are_refused(wrong, told):
    right = dict(prompts=["a", "b"], replies_a=["x", "y"], replies_b=["v", "w"])
    with pytest.raises(ValueError, match=told):
        pairs_to_rate(**right | wrong)


# --- What ratings say -----------------------------------------------------------------


@pytest.mark.parametrize(
    "wins, losses, ties", [(1, 0, 0), (0, 3, 0), (9, 4, 3), (0, 0, 5)]
)
def test_strength_and_win_rate_have_their_closed_forms(wins, losses, ties):
    session = rated(RatingSession(made()), wins, losses, ties, skips=2)
    won, lost = wins + ties / 2, losses + ties / 2
    strength = session.fit()["best of 8"]
    expected = np.log((won + 0.5) / (lost + 0.5))
    half = 1.959964 * np.sqrt(1 / (won + 0.5) + 1 / (lost + 0.5))
    assert strength == pytest.approx((expected, expected - half, expected + half))
    n, z = won + lost, 1.959964
    share = won / n
    middle = (share + z**2 / 2 / n) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / 4 / n**2)
    limits = (max(0, middle - half), min(1, middle + half))
    assert session.win_rate() == pytest.approx((share, *limits), abs=1e-5)
    assert session.win_rate("SFT").value == pytest.approx(1 - share)


def test_without_ratings_nothing_is_known():
    session = RatingSession(made())
    assert session.win_rate() == (0.5, 0, 1)
    strength = session.fit()["best of 8"]
    assert strength.value == pytest.approx(0, abs=1e-9) and strength.high > 3.5
    assert session.summary() == "Nothing is rated yet."
    session.rate("skip")
    assert session.summary() == "Nothing is rated yet."


def test_a_higher_level_is_wider():
    session = rated(RatingSession(made()), 5, 3)
    for interval in (session.win_rate, lambda **to: session.fit(**to)["best of 8"]):
        narrow, wide = interval(level=0.5), interval(level=0.99)
        assert wide.low < narrow.low < narrow.high < wide.high


def test_three_systems_are_fitted_together():
    pairs = made(10) + made(10, names=("SFT", "PPO"), seed=1)
    session = RatingSession(pairs)
    assert session.systems == ["SFT", "best of 8", "PPO"]
    for name in ["best of 8"] * 6 + ["SFT"] * 4 + ["PPO"] * 9 + ["SFT"]:
        session.rate(side_of(session.current, name))
    assert session.wins().tolist() == [[0, 4, 1], [6, 0, 0], [9, 0, 0]]
    values = {name: strength.value for name, strength in session.fit().items()}
    expected = {"best of 8": np.log(6.5 / 4.5), "PPO": np.log(9.5 / 1.5)}
    assert values == pytest.approx(expected, abs=1e-6)
    assert session.win_rate("PPO").value == pytest.approx(0.9)
    with pytest.raises(ValueError, match="system is 'DPO'"):
        session.win_rate("DPO")


@pytest.mark.parametrize("seed", [0, 5])  # SFT is System A, then System B
def test_the_summary_calls_systems_by_letters_until_the_end(seed):
    session = rated(RatingSession(made(12, seed=seed)), 11, 0, ties=1)
    blind = session.summary()
    assert not any(name in blind for name in NAMES)
    assert "12 of 12 pairs rated, 1 of them about equal." in blind
    letter = session.called()["best of 8"]
    assert f"so to this rater {letter} is better." in blind
    share = "96%" if letter == "System B" else "4%"
    assert f"System B is preferred in {share} (" in blind
    session.reveal()
    assert "best of 8 is preferred in 96% (" in session.summary()
    assert "so to this rater best of 8 is better." in session.summary()


def test_which_letter_a_system_gets_is_random():
    letters = {RatingSession(made(seed=s)).called()["SFT"] for s in range(8)}
    assert letters == {"System A", "System B"}


def test_the_summary_follows_the_interval():
    better = rated(RatingSession(made(12)), 0, 12)
    better.reveal()
    assert "so to this rater SFT is better." in better.summary()
    for wins, losses in ((7, 5), (5, 7)):
        unsure = rated(RatingSession(made(12)), wins, losses)
        assert "does not yet tell which of them is better." in unsure.summary()


# --- The session and its file ---------------------------------------------------------


def test_ratings_outlive_the_session(tmp_path):
    path = tmp_path / "deep" / "ratings.json"
    session = RatingSession(made(5), path)
    for choice in rating.CHOICES:
        session.rate(choice)
        assert RatingSession(made(5), path).ratings == session.ratings
    again = RatingSession(made(5), str(path))
    assert again.current == session.pairs[4] and not again.revealed
    again.undo()
    assert RatingSession(made(5), path).ratings == ["left", "right", "tie"]
    rated(again, 2)
    again.reveal()
    assert RatingSession(made(5), path).revealed
    assert [file.name for file in path.parent.iterdir()] == ["ratings.json"]


def test_the_file_says_who_wrote_what(tmp_path):
    rated(RatingSession(made(2), tmp_path / "r.json"), 1, 1)
    content = json.loads((tmp_path / "r.json").read_text())
    preferred = [
        row[f"{choice}_system"]
        for row, choice in zip(content["pairs"], content["ratings"], strict=True)
    ]
    assert preferred == ["best of 8", "SFT"]


@pytest.mark.parametrize(
    "other",
    [made(4, seed=1), made(3), made(4, names=("SFT", "PPO"))],
    ids=["seed", "fewer", "systems"],
)
def test_a_file_of_other_pairs_is_refused(tmp_path, other):
    path = tmp_path / "ratings.json"
    RatingSession(made(4), path).rate("left")
    before = path.read_bytes()
    with pytest.raises(AlignlabError, match="of other pairs .* Choose another path"):
        RatingSession(other, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: "[1, 2]",
        lambda content: json.dumps(content)[:-20],
        lambda content: json.dumps(content | {"ratings": ["left"] * 5}),
        lambda content: json.dumps(content | {"ratings": ["up"]}),
        lambda content: json.dumps(content | {"ratings": [["left"]]}),
    ],
    ids=["no ratings", "half a file", "too many", "unknown choice", "nested"],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, spoil):
    path = tmp_path / "ratings.json"
    RatingSession(made(4), path).rate("left")
    path.write_text(spoil(json.loads(path.read_text())))
    problem = "ratings.json (holds no ratings. Choose|is damaged)"
    with pytest.raises(AlignlabError, match=problem):
        RatingSession(made(4), path)


def test_a_rating_that_cannot_be_saved_is_not_kept(tmp_path):
    (tmp_path / "file").touch()
    session = RatingSession(made(4), tmp_path / "file" / "ratings.json")
    with pytest.raises(AlignlabError, match="cannot be written"):
        session.rate("left")
    assert session.ratings == []


def test_undo_takes_the_last_rating_back():
    session = RatingSession(made(3))
    session.undo()
    session.rate("left")
    session.rate("skip")
    session.undo()
    assert session.ratings == ["left"] and session.current == session.pairs[1]


def test_what_a_session_refuses():
    with pytest.raises(ValueError, match="pairs is empty"):
        RatingSession([])
    session = RatingSession(made(2))
    with pytest.raises(ValueError, match="choice is 'both'"):
        session.rate("both")
    with pytest.raises(AlignlabError, match="2 of 2 pairs are not rated yet"):
        session.reveal()
    rated(session, 2)
    with pytest.raises(AlignlabError, match="All 2 pairs are rated"):
        session.rate("left")
    session.reveal()
    with pytest.raises(AlignlabError, match="these ratings are closed"):
        session.undo()


# --- Simulated raters -----------------------------------------------------------------


def test_a_simulated_rater_is_recovered():
    def prefer(prompt, first, second):
        return expit(1.2 * (first.startswith("good") - second.startswith("good")))

    session = simulate(RatingSession(made(4000, of=4000)), prefer, seed=3)
    assert session.done and not session.revealed
    strength = session.fit()["best of 8"]
    assert strength.low < 1.2 < strength.high
    assert strength.high - strength.low < 0.2
    assert session.win_rate().value == pytest.approx(expit(1.2), abs=0.025)


def test_a_rater_of_sides_favours_no_system():
    session = simulate(RatingSession(made(20)), lambda prompt, left, right: 1.0)
    assert set(session.ratings) == {"left"} and session.win_rate().value == 0.5


def test_a_simulated_rater_goes_on_where_the_session_stands():
    def sure(prompt, first, second):
        return float(first.startswith("good"))

    session = rated(RatingSession(made(10)), 0, 4)
    assert simulate(session, sure).wins()[1, 0] == 6
    runs = [
        simulate(RatingSession(made()), lambda *_: 0.5, seed).ratings
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
    with pytest.raises(ValueError, match="prefer gave nan"):
        simulate(RatingSession(made()), lambda *_: float("nan"))
