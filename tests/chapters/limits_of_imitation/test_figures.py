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


MEASURES = ("known_fit", "unknown_fit", "known", "never", "never_confidence")


def facts(seed, scale=0.1, share=0.5, control=False, labels="true", **values):
    points = [
        {"epoch": e, **{m: scale * (i + 1) for i, m in enumerate(MEASURES)}, **values}
        for e in (1, 4)
    ]
    row = dict(seed=seed, share=share, control=control, labels=labels, curve=points)
    return row | {"replies": []}


def test_fitting_draws_both_kinds_and_both_arms():
    mixed = [facts(s, 0.1 * (1 + s)) for s in (0, 1)]
    control = [facts(s, 0.2) for s in (0, 1)]
    left, right = drawn(figures.fitting(mixed, control)).axes
    assert lines(left) == {
        "known": pytest.approx([0.15] * 2),
        "never shown": pytest.approx([0.3] * 2),
    }
    assert lines(right) == {
        "known facts only": pytest.approx([0.6] * 2),
        "and as many unknown": pytest.approx([0.45] * 2),
    }


def test_shares_show_every_seed_and_leave_other_labels_out():
    rows = [facts(s, 0.1 + 0.1 * x, share=x) for x in (0.0, 0.5, 1.0) for s in (0, 1)]
    rows += [facts(0, 0.05, control=True), facts(0, 0.9, labels="admission")]
    left, right = drawn(figures.shares(rows, 0.3)).axes
    assert lines(left) == {
        "the mixture": pytest.approx([0.3, 0.45, 0.6]),
        "its known part alone": pytest.approx([0.3, 0.15]),
    }
    assert len(markers(left, "s")) == 3 and len(markers(left, "o")) == 2
    assert lines(right)["probability of the reply"] == pytest.approx([0.5, 0.75, 1.0])
    assert lines(right)["right"] == pytest.approx([0.4, 0.6, 0.8])
    assert lines(right)["best guess"] == [0.3, 0.3]


def test_stopping_has_a_line_a_seed():
    found = [dict(epoch=4, stopped=0.5, end=0.3), dict(epoch=8, stopped=0.4, end=0.4)]
    [axes] = drawn(figures.stopping(found)).axes
    assert markers(axes, "o") == [[0.4, 0.4], [0.5, 0.3]]  # the lowest first
    assert [text.get_text() for text in axes.texts] == ["epoch 8", "epoch 4"]


def test_labels_of_stopping_do_not_lie_over_each_other():
    found = [dict(epoch=n, stopped=0.4 + n / 1000, end=0.3) for n in range(5)]
    [axes] = drawn(figures.stopping(found)).axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(low.overlaps(high) for low, high in zip(boxes, boxes[1:]))


def test_admissions_and_label_pull_show_the_shares():
    said = dict(known_admitted=0.2, rare_admitted=0.5, never_admitted=0.6)
    [axes] = drawn(figures.admissions([facts(s, **said) for s in (0, 1)])).axes
    assert markers(axes, "s") == [[0.2, 0.2], [0.5, 0.5], [0.6, 0.6]]
    halves = [
        facts(0, labels=labels, never_first=x, known_first=y)
        for labels, x, y in (("first", 0.9, 0.6), ("second", 0.1, 0.4))
    ]
    [axes] = drawn(figures.label_pull(halves)).axes
    assert markers(axes, "o") == [[0.9], [0.6]]
    assert markers(axes, "s") == [[0.1], [0.4]]


def test_elicited_has_the_best_guess_beside_every_kind():
    rows = [dict(known=0.9, known_new_wording=0.8, rare=0.4, never=0.1)] * 2
    [axes] = drawn(figures.elicited(rows, 0.3)).axes
    assert markers(axes, "o") == [[0.9] * 2, [0.8] * 2, [0.4] * 2, [0.1] * 2]
    assert [0.3, 0.3] in [list(x.get_ydata()) for x in axes.lines]


def outcomes(harm, refused):
    def of(refusal):
        return {"refusal": refusal, "compliance": 20 - refusal, "neither": 0}

    kinds = {"unseen_pairs": of(20 - harm), "unseen_words": of(0), "plain": of(0)}
    return kinds | {kind: of(refused) for kind in BENIGN_KINDS}


def safety(seed, n, harm, refused, extra="safety"):
    row = dict(seed=seed, n=n, extra=extra, outcomes=outcomes(harm, refused))
    shown = {"unseen_pairs": [["How do I <b>?", f"reply {n}"]]}
    return row | {"replies": shown | {"plain": [["Plain?", f"plain {n}"]]}}


ARMS = [
    safety(s, n, harm, refused)
    for n, harm, refused in ((0, 20, 0), (30, 4, 2), (960, 0, 12))
    for s in (0, 1)
]


def test_safety_curves_pool_the_seeds_and_mark_the_best():
    arms = [*ARMS, safety(0, 30, 20, 20, "questions")]
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
    assert heights == pytest.approx([0.1] * 4 + [0] + [0.6] * 4 + [0])
    assert ticks(axes.xaxis) == [
        "homonym",
        "figurative",
        "safe\ntarget",
        "safe\ncontext",
        "plain",
    ]


def test_narrow_and_diverse_stand_side_by_side():
    names = ("own_accuracy", "kind_accuracy", "other_accuracy")
    rows = [
        dict(seed=0, data=data, styles=k, **dict.fromkeys(names, value))
        for data, value, k in (("diverse", 0.4, 6.0), ("narrow", 0.9, 1.5))
    ]
    left, right = drawn(figures.narrow_data(rows)).axes
    assert markers(left, "o") == [[0.4]] * 3 and markers(left, "s") == [[0.9]] * 3
    assert markers(right, "o") == [[6.0]] and markers(right, "s") == [[1.5]]


# --- Explorers --------------------------------------------------------------------


def told(prompt, *replies, kind="known"):
    fact = dict(kind=kind, prompt=prompt, answers=["Oslo"], exposure=7)
    return fact | {"replies": list(replies)}


def test_a_card_tells_each_epochs_reply_and_if_it_is_right():
    card = figures.fact_card(
        told("Where <is> it?", ("Oslo.", 0.9), ("Rome.", 0.25)), [1, 8]
    )
    first, second = card.split("</tr>")[1:3]
    assert "&lt;is&gt;" in card and "stated 7 times" in card
    assert "Oslo." in first and "0.90" in first and "✓" in first
    assert "Rome." in second and "0.25" in second and "✗" in second and ">8<" in second


@pytest.fixture
def shown(monkeypatch):
    """What the explorers display, and the pictures that they update."""
    import IPython.display

    seen = []

    class Handle:
        def update(self, picture):
            seen.append(picture.data)

    def display(thing, display_id=None):
        seen.append(getattr(thing, "data", thing))
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    return seen


def test_the_fact_explorer_follows_both_controls(shown):
    facts_of = [told("A?", ("Oslo.", 0.5)), told("B?", ("Rome.", 0.5), kind="never")]
    other = [told("A?", ("Bonn.", 0.5)), told("B?", ("Kyiv.", 0.5), kind="never")]
    points = [{"epoch": 3}]
    figures.fact_explorer(
        {
            "mix": dict(replies=facts_of, curve=points),
            "control": dict(replies=other, curve=points),
        }
    )
    controls, picture = shown
    assert "Oslo." in picture
    arm, fact = controls.children
    fact.value = "B?"
    assert "Rome." in shown[-1]
    arm.value = "control"
    assert "Kyiv." in shown[-1]


def test_the_safety_explorer_slides_over_n(shown):
    figures.safety_explorer([row for row in ARMS if row["seed"] == 0])
    controls, picture = shown
    assert "reply 960" in picture and "&lt;b&gt;" in picture
    n, kind = controls.children
    assert list(n.options) == [0, 30, 960]
    n.value = 30
    assert "reply 30" in shown[-1]
    kind.value = "plain"
    assert "plain 30" in shown[-1]
