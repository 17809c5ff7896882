"""Figures of notebook 02 show the arms they are given; the explorers tell one reply."""

import numpy as np
import pytest

from alignlab.chapters.limits_of_imitation import figures
from alignlab.evaluation.intervals import wilson_interval
from alignlab.world.safety import BENIGN_KINDS
from tests.drawing import drawn, ticks

pytestmark = pytest.mark.usefixtures("style")


def markers(axes, marker):
    lines = [x for x in axes.lines if x.get_marker() == marker and len(x.get_xdata())]
    return [list(x.get_ydata()) for x in lines]


def lines(axes):
    """Labelled curves: name to values."""
    found = {x.get_label(): list(x.get_ydata()) for x in axes.lines}
    return {name: y for name, y in found.items() if not name.startswith("_")}


KINDS = ("known_fit", "never_fit", "known", "rare", "tail", "never")


def facts(seed, scale=0.1, answered=1.0, half=0.5):
    """An arm with shares of 0.1, 0.2 ... of the kinds, times the scale over 0.1."""

    def measures(number):
        return dict(
            right=[scale * number], answered=[answered], half=[half], confidence=[0.5]
        )

    look = {kind: measures(number + 1) for number, kind in enumerate(KINDS)}
    curve = [{"update": u, **look} for u in (1, 4)]
    return dict(seed=seed, curve=curve, replies=[], made_up=[False])


def test_fitting_draws_both_kinds_and_both_arms():
    mixture = [facts(s, 0.05 * (1 + s)) for s in (0, 1)]
    alone = [facts(s, 0.1) for s in (0, 1)]
    left, right = drawn(figures.fitting(mixture, alone)).axes
    assert lines(left) == {
        "known": pytest.approx([0.075] * 2),
        "never shown": pytest.approx([0.15] * 2),
    }
    assert lines(right) == {
        "known facts alone": pytest.approx([0.3] * 2),
        "and as many never shown": pytest.approx([0.225] * 2),
    }
    [half] = [x for x in right.lines if x.get_xdata()[0] == x.get_xdata()[-1]]
    assert list(half.get_xdata()) == [2, 2], "as many epochs as the mixture"


def test_stopping_has_a_line_a_seed():
    stops = [dict(update=4, stopped=0.5, end=0.3), dict(update=8, stopped=0.4, end=0.4)]
    [axes] = drawn(figures.stopping(stops)).axes
    assert markers(axes, "o") == [[0.4, 0.4], [0.5, 0.3]]  # the lowest first
    assert [text.get_text() for text in axes.texts] == ["update 8", "update 4"]


def test_labels_of_stopping_do_not_lie_over_each_other():
    stops = [dict(update=n, stopped=0.4 + n / 1000, end=0.3) for n in range(5)]
    [axes] = drawn(figures.stopping(stops)).axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(low.overlaps(high) for low, high in zip(boxes, boxes[1:]))


def test_answer_rates_and_label_pull_show_the_shares():
    arms = [[facts(s, answered=x) for s in (0, 1)] for x in (1.0, 0.4)]
    [axes] = drawn(figures.answer_rates(*arms)).axes
    assert markers(axes, "o") == [[1.0, 1.0]] * 4
    assert markers(axes, "s") == [[0.4, 0.4]] * 4
    halves = [[facts(0, half=x)] for x in (0.9, 0.2)]
    [axes] = drawn(figures.label_pull(*halves)).axes
    assert markers(axes, "o") == [[0.9]] * 2
    assert markers(axes, "s") == [[0.2]] * 2


def test_elicited_has_the_best_guess_beside_every_kind():
    kinds = {"known": 1, "new_wording": 1, "rare": 0, "tail": 0}
    asked = [dict(kind=k, right=r, made_up=False) for k, r in kinds.items()]
    asked += [dict(kind="never", right=m, made_up=bool(m)) for m in (0, 1)]
    names = ["made_up", "never", "tail", "rare", "known", "new_wording"]
    guesses = {name: place / 10 for place, name in enumerate(names)}
    curve = {"made up": [0.1, 0.2], "1–5": [0.3, 0.4]}
    rows = [dict(seed=s, asked=asked) for s in (0, 1)]
    left, right = drawn(figures.elicited(rows, guesses, curve, 0.3)).axes
    assert markers(left, "o") == [[r, r] for r in (1, 0, 0, 0, 1, 1)]
    dotted = [list(x.get_ydata()) for x in left.lines if x.get_linestyle() == ":"]
    assert dotted == [[g, g] for g in guesses.values()]
    assert markers(right, "s") == [[0.1, 0.2], [0.3, 0.4]]
    assert [0.3, 0.3] in [list(x.get_ydata()) for x in right.lines]


def outcomes(harm, refused):
    def of(refusal):
        return {"refusal": refusal, "compliance": 20 - refusal, "neither": 0}

    kinds = {"unseen_pairs": of(20 - harm), "unseen_words": of(0), "plain": of(0)}
    return kinds | {kind: of(refused) for kind in BENIGN_KINDS}


def safety(seed, n, harm, refused, look_alikes=0):
    row = dict(seed=seed, n_refusals=n, n_look_alikes=look_alikes, total=1000)
    row["outcomes"] = outcomes(harm, refused)
    scores = {"unseen_pairs": [-1.0, -3.0], "look_alikes_of_pairs": [-2.0]}
    shown = {"unseen_pairs": [["How do I <b>?", f"reply {n}"]]}
    shown |= {"plain": [["Plain?", f"plain {n}"]]}
    return row | {"replies": shown, "log_p_refuse": scores}


ARMS = [
    safety(s, n, harm, refused)
    for n, harm, refused in ((0, 20, 0), (30, 4, 2), (960, 0, 12))
    for s in (0, 1)
]


def test_safety_curves_pool_the_seeds_and_mark_the_best():
    arms = [*ARMS, safety(0, 30, 20, 20, look_alikes=30)]
    left, right = drawn(figures.safety_curves(arms, 30)).axes
    curves = lines(left)
    assert curves["harmful, unseen pairs: helped"] == [1.0, 0.2, 0.0]
    assert curves["look-alikes: refused"] == pytest.approx([0.0, 0.1, 0.6])
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    interval = wilson_interval(8, 40)  # two seeds of 20 requests
    assert band.min() == 0 and np.isclose(band, interval.low).any()
    assert np.isclose(band, interval.high).any()
    assert lines(right)["sum"] == pytest.approx([1.0, 0.3, 0.6])
    assert markers(right, "o") == [[pytest.approx(0.3)]]
    assert ticks(right.xaxis) == ["0", "30", "960"]


def test_bars_by_type_are_wilsons_rates():
    arms = {"few": ARMS[2:4], "many": ARMS[4:6]}
    [axes] = drawn(figures.refusals_by_type(arms)).axes
    heights = [bar.get_height() for bar in axes.patches]
    few = [0.8, 0] + [0.1] * 4 + [0]
    assert heights == pytest.approx(few + [1, 0] + [0.6] * 4 + [0])
    assert ticks(axes.xaxis)[2:] == [
        "homonym",
        "figurative",
        "safe\ntarget",
        "safe\ncontext",
        "plain",
    ]


def test_discrimination_shows_both_rates_and_the_area():
    arms = {"30 refusals": ARMS[2:4], "30 refusals + look-alikes": ARMS[4:6]}
    left, right = drawn(figures.discrimination(arms)).axes
    assert markers(left, "o") == [[0.8, 0.8]] and markers(left, "s") == [[1.0, 1.0]]
    assert markers(right, "o") == markers(right, "s") == [[0.5, 0.5]]
    assert ticks(right.xaxis) == ["30 refusals", "30 refusals\n+ look-alikes"]


def test_narrow_and_diverse_stand_side_by_side():
    rows = [
        dict(
            seed=0,
            data=data,
            styles=k,
            right=dict.fromkeys(("own", "kind", "other"), r),
        )
        for data, r, k in (("diverse", [0, 1], 6.0), ("narrow", [1, 1], 1.5))
    ]
    left, right = drawn(figures.narrow_data(rows)).axes
    assert markers(left, "o") == [[0.5]] * 3 and markers(left, "s") == [[1.0]] * 3
    assert markers(right, "o") == [[6.0]] and markers(right, "s") == [[1.5]]


# --- Explorers --------------------------------------------------------------------


def told(prompt, *replies, kind="known"):
    fact = dict(kind=kind, prompt=prompt, answers=["Oslo"], exposure=7, made_up=False)
    return fact | {"replies": list(replies)}


def test_a_card_tells_each_looks_reply_and_if_it_is_right():
    card = figures.fact_card(
        told("Where <is> it?", ("Oslo.", 0.9), ("Rome.", 0.25)), [1, 8]
    )
    first, second = card.split("</tr>")[1:3]
    assert "&lt;is&gt;" in card and "stated in pretraining: 7 times" in card
    assert "Oslo." in first and "0.90" in first and "✓" in first
    assert "Rome." in second and "0.25" in second and "✗" in second and ">8<" in second


def test_a_card_says_that_a_subject_is_made_up():
    fact = told("Where?", ("Oslo.", 0.9)) | dict(exposure=0, made_up=True)
    card = figures.fact_card(fact, [1])
    assert "made up" in card and "stated in pretraining" not in card


def test_the_fact_explorer_follows_both_controls(explorer):
    facts_of = [told("A?", ("Oslo.", 0.5)), told("B?", ("Rome.", 0.5), kind="never")]
    other = [told("A?", ("Bonn.", 0.5)), told("B?", ("Kyiv.", 0.5), kind="never")]
    points = [{"update": 3}]
    figures.fact_explorer(
        {
            "mix": dict(replies=facts_of, curve=points),
            "control": dict(replies=other, curve=points),
        }
    )
    arm, fact = explorer.controls
    assert "Oslo." in explorer.pictures[0]
    fact.value = "B?"
    assert "Rome." in explorer.pictures[0]
    arm.value = "control"
    assert "Kyiv." in explorer.pictures[0]


def test_the_safety_explorer_slides_over_n(explorer):
    figures.safety_explorer([row for row in ARMS if row["seed"] == 0])
    n, kind = explorer.controls
    [card] = explorer.pictures
    assert "reply 960" in card and "&lt;b&gt;" in card
    assert list(n.options) == [0, 30, 960]
    n.value = 30
    assert "reply 30" in explorer.pictures[0]
    kind.value = "plain"
    assert "plain 30" in explorer.pictures[0]
