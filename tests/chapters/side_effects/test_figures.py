"""Figures of notebook 06 show the runs they are given; the explorer one evaluation."""

import math

import numpy as np
import pytest

from alignlab.chapters.side_effects import figures
from alignlab.evaluation.intervals import Interval
from alignlab.evaluation.over_optimisation import FORMS, Curve
from alignlab.study import artifacts
from alignlab.world import gold
from tests.drawing import drawn, legend

pytestmark = pytest.mark.usefixtures("style")
SUBJECTS = 4


@pytest.fixture(autouse=True)
def subjects(monkeypatch):
    monkeypatch.setattr(artifacts, "subjects", lambda split: list("abcd"))


def run(seed=0, height=1.0, looks=5):
    """Gold rises and falls by a parabola over distance, the proxy rises throughout."""
    d = np.arange(looks, dtype=float)
    golds = (height * d * (3 - d))[:, None, None] + np.zeros((looks, SUBJECTS, 2))
    wobble = np.array([-1.0, 1.0])
    points = [
        {
            "step": 2 * i,
            "kl": float(d[i] ** 2),
            "entropy": 2.0 - 0.2 * i,
            "golds": golds[i].tolist(),
            "proxies": (d[i] + wobble + np.zeros((SUBJECTS, 2))).tolist(),
            "texts": [["I do not know. I hope this helps.", f"reply {i} <b>"]]
            * SUBJECTS,
        }
        for i in range(looks)
    ]
    return {"seed": seed, "points": points}


def test_rise_and_fall_draws_every_look_of_every_run():
    groups = {"learnt": [run(0), run(1, 2.0)], "control": [run(2)]}
    left, right = drawn(figures.rise_and_fall(groups)).axes
    dots = [line for line in left.lines if line.get_linestyle() == "None"]
    assert [line.get_ydata().tolist() for line in dots] == [
        [0, 2, 2, 0, -4], [0, 4, 4, 0, -8], [0, 2, 2, 0, -4]
    ]  # fmt: skip
    assert dots[0].get_xdata().tolist() == [0, 1, 2, 3, 4]
    proxies = [line for line in right.lines if line.get_linestyle() == "None"]
    assert proxies[0].get_ydata() == pytest.approx([0, 1, 2, 3, 4])
    assert legend(left) == ["learnt", "control"]


def test_halves_mark_the_peak_that_one_of_them_picks():
    [axes, other] = drawn(figures.halves([run(0), run(1)])).axes
    assert legend(axes) == ["picks", "measures"]
    assert axes.lines[-1].get_xdata()[0] == 1
    assert other.get_title(loc="left") == "Seed 1"


def test_contents_draw_what_gold_counts(monkeypatch):
    figure = drawn(figures.contents([run()]))
    closing = list(figures.CONTENTS).index("closing")
    lines = figure.axes[0].lines
    assert len(lines) == len(figures.CONTENTS) <= len(gold.GOLD_WEIGHTS)
    assert lines[closing].get_ydata() == pytest.approx(0.5), "every other reply"
    assert set(figures.CONTENTS) <= set(gold.GOLD_WEIGHTS)


D = np.array([0.0, 0.6, 1, 2, 3, 4])


def test_methods_star_the_peak_of_the_fit():
    bent = Curve(D, D * (2 - 0.5 * D))
    groups = {"best of n": [bent, bent], "DPO": [Curve(D / 20, D)]}
    [axes] = drawn(figures.methods(groups)).axes
    [star] = [x for x in axes.lines if x.get_marker() == "*" and len(x.get_xdata())]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == pytest.approx((2, 2))
    assert legend(axes) == [
        "best of n",
        "DPO (too near to fit)",
        "peak of the fit",
    ]


def test_fits_name_their_held_out_errors():
    errors = {form: place for place, form in enumerate(FORMS)}
    [axes] = drawn(figures.fits([Curve(D, D * (2 - 0.5 * D))], errors)).axes
    marks, *forms = legend(axes)
    assert marks.startswith("looks")
    assert [text.partition(":")[0] for text in forms] == list(FORMS)
    assert "held out: 2.00" in forms[2]


def test_the_formula_stands_beside_the_truth():
    rows = [dict(n=n, formula=float(n), exact=n - 0.5) for n in (1, 2, 4)]
    [axes] = drawn(figures.analytic_kl(rows)).axes
    assert axes.lines[0].get_ydata().tolist() == [1, 2, 4]
    assert axes.lines[1].get_ydata().tolist() == [0.5, 1.5, 3.5]


def test_weaker_reward_models_have_a_line_each():
    def curve(top):
        return [dict(n=n, kl=float((n - 1) ** 2), gold=top * n) for n in (1, 2, 4)]

    [axes] = drawn(figures.weaker({500: [curve(1), curve(3)], 4000: [curve(4)]})).axes
    assert legend(axes) == ["500 comparisons", "4,000 comparisons"]
    [mean] = [x for x in axes.lines if x.get_label() == "500 comparisons"]
    assert mean.get_xdata().tolist() == [0, 1, 3]
    assert mean.get_ydata().tolist() == [2, 4, 8]


def test_rules_have_a_row_and_a_dot_a_seed():
    [axes] = drawn(figures.stopping({"end": [-1.0, 0.0], "judge": [0.5, 0.7]})).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["end", "judge"]
    dots = [
        line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "o"
    ]
    assert dots == [[-1.0, 0.0], [0.5, 0.7]]


def test_the_monitor_draws_changes_in_standard_deviations_of_the_start():
    looks = [
        dict(step=s, proxy=[5.0 + s, 1.0 + s], judge=[3.0 - s, 1.0]) for s in (0, 4)
    ]
    [axes] = drawn(figures.monitor(looks)).axes
    assert legend(axes) == ["proxy", "judge"]
    proxy, judge = (container[0] for container in axes.containers)
    assert proxy.get_ydata().tolist() == [0, 2]
    assert judge.get_ydata().tolist() == [0, -2]
    [[low, high]] = [
        path.vertices[:, 1] for path in axes.containers[1][2][0].get_paths()[1:]
    ]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(8) / np.sqrt(2)), "-4 and 0"


def test_what_can_be_noticed_has_two_panels():
    seen = dict(proxy=np.arange(5.0), judge=-np.arange(5.0), disagreement=np.ones(5))
    left, right = drawn(figures.noticed([run(0), run(1)], [seen, seen])).axes
    assert legend(left) == ["proxy", "judge"]
    [judge] = [x for x in left.lines if x.get_label() == "judge"]
    assert (judge.get_xdata()[-1], judge.get_ydata()[-1]) == (4, -4)
    assert right.lines[-1].get_ydata() == pytest.approx(1)


def test_many_halves_stand_in_two_rows():
    panels = drawn(figures.halves([run(seed) for seed in range(8)])).axes
    places = [panel.get_subplotspec() for panel in panels]
    assert [(p.rowspan.start, p.colspan.start) for p in places] == [
        *((0, column) for column in range(5)),
        *((1, column) for column in range(3)),
    ]


def test_no_two_of_many_runs_look_alike():
    rows = [run(seed) for seed in range(14)]
    panel, _ = drawn(figures.entropy_and_reward(rows)).axes
    looks = {(x.get_color(), x.get_marker(), x.get_linestyle()) for x in panel.lines}
    assert len(looks) == 14


def test_remedies_go_from_the_peak_to_the_end():
    # One half of the requests picks the second look, the other measures.
    uneven = run()
    for place, golds in enumerate([9.0, 8.0, 7.0, 6.0, 5.0]):
        for subject in (1, 3):
            uneven["points"][place]["golds"][subject] = [golds] * 2
    figure = drawn(figures.remedies({"as it was": [uneven], "β": [run(0, 2.0)]}))
    left, right = figure.axes
    assert legend(left) == ["as it was", "β"]
    spans = [line.get_xdata() for line in right.lines if len(line.get_xdata()) == 2]
    assert [list(span) for span in spans] == [[8, 5], [4, -8]]
    names = [label.get_text() for label in right.get_yticklabels()]
    assert names == ["as it was", "β"]


def test_diversity_and_entropy_follow_the_runs():
    along = {name: np.arange(5.0) for name in figures.DIVERSITY}
    figure = drawn(figures.diversity([run(), run(1)], [along, along]))
    assert len(figure.axes) == 4
    for axes in figure.axes:
        first, second, mean = axes.lines
        assert mean.get_xdata()[[0, -1]].tolist() == [0, 4]
        for line in (first, second, mean):
            assert line.get_ydata() == pytest.approx(line.get_xdata())
    left, right = drawn(figures.entropy_and_reward([run()])).axes
    assert left.lines[0].get_xdata().tolist() == [0, 2, 2, 0, -4]
    assert right.lines[0].get_ydata() == pytest.approx([2, 1.8, 1.6, 1.4, 1.2])


def test_temperature_labels_the_mean_of_seeds():
    def curve(gold_at_one):
        return [dict(temperature=t, diversity=t, gold=gold_at_one / t) for t in (1, 2)]

    [axes] = drawn(figures.temperature([curve(4), curve(6)], [curve(2)])).axes
    assert legend(axes) == [
        "reference",
        "after PPO",
        "reference at temperature 1",
    ]
    across, up = axes.lines[-2:]
    assert across.get_xdata()[0] == 1 and up.get_ydata()[0] == 2
    means = [
        line.get_ydata().tolist() for line in axes.lines if line.get_marker() != "None"
    ]
    assert means == [[2, 1], [5, 2.5]]
    assert [note.get_text() for note in axes.texts] == ["1", "2", "1", "2"]


def test_a_card_shows_replies_beside_what_they_are_worth():
    card = figures.point_card(run(), 2, 0, "Tell me about a.")
    assert "Step 4, 4.0 nats" in card and "gold +2.00, proxy reward +2.00 sd" in card
    assert "reply 2 &lt;b&gt;" in card and card.count("<tr>") == 3
    assert "+1.00" in card and "+3.00" in card, "each reply's own proxy reward"


def test_the_explorer_turns_to_another_look_and_request(explorer):
    figures.run_explorer(run(), ["ask a", "ask b", "ask c", "ask d"])
    slider, chooser = explorer.controls
    assert "Step 0" in explorer.pictures[0]
    slider.value = 3
    assert "Step 6" in explorer.pictures[0] and "ask a" in explorer.pictures[0]
    chooser.value = 2
    assert "Step 6" in explorer.pictures[0] and "ask c" in explorer.pictures[0]


# --- The price of KL ------------------------------------------------------------------

KL = np.array([0.0, 1.0, 4.0])
FRONTIERS = {
    "best of n": dict(kl=KL, proxy=KL / 2, gold=np.array([0.0, 0.3, 0.1])),
    "PPO": dict(kl=KL, proxy=np.sqrt(KL), gold=np.array([0.0, 0.2, -0.4])),
}


def test_frontiers_are_means_over_seeds_that_begin_with_no_gold_gained():
    def curve(gold):
        return [dict(kl=k, proxy=k / 2, gold=1 + gold * k) for k in (0.0, 1.0)]

    runs = [run(0), run(1)]
    found = figures.mean_frontiers({"PPO": runs}, [curve(0.2), curve(0.4)])
    assert list(found) == ["best of n", "PPO"]
    assert found["best of n"]["gold"] == pytest.approx([0.0, 0.3])
    assert found["best of n"]["proxy"] == pytest.approx([0.0, 0.5])
    kl, golds = found["PPO"]["kl"], found["PPO"]["gold"]
    assert kl[0] == 0 and kl[-1] == pytest.approx(runs[0]["points"][-1]["kl"])
    ends = [
        np.mean(r["points"][-1]["golds"]) - np.mean(r["points"][0]["golds"])
        for r in runs
    ]
    assert golds[0] == 0 and golds[-1] == pytest.approx(np.mean(ends))


def test_a_price_stops_where_the_next_nat_costs_more_than_it_buys():
    # √KL has slope 1 to 1 nat and 1/3 from there; KL/2 has slope 1/2 all the way.
    for price, best, ppo in ((0.0, 2, 2), (0.4, 2, 1), (0.6, 0, 1), (1.1, 0, 0)):
        stops = [figures.stopped_at(c, price) for c in FRONTIERS.values()]
        assert stops == [best, ppo]


def test_the_price_explorer_marks_both_panels_and_says_what_is_had(explorer):
    figures.price_explorer(FRONTIERS)
    [price] = explorer.controls
    price.value = 0.4
    figure, card = explorer.pictures
    proxy, gold = drawn(figure).axes
    marks = [line for line in gold.lines if line.get_markersize() == 11]
    assert [m.get_xdata()[0] for m in marks] == [4.0, 1.0]
    assert [m.get_ydata()[0] for m in marks] == [0.1, 0.2]
    tangents = [line for line in proxy.lines if line.get_linestyle() == ":"]
    assert len(tangents) == 2
    for line in tangents:
        (x0, x1), (y0, y1) = line.get_xdata(), line.get_ydata()
        assert (y1 - y0) / (x1 - x0) == pytest.approx(0.4)
    best, ppo = card.split("<tr>")[2:]
    assert "4.00" in best and "+2.00" in best and "+0.40" in best and "+0.10" in best
    assert "1.00" in ppo and "+0.60" in ppo and "+0.20" in ppo


def test_peaks_in_words():
    words = figures.interval_words
    assert words(Interval(2.0, 1.5, 3.25)) == "2.00 (1.50 to 3.25)"
    assert words(Interval(2.0, 1.5, math.inf)) == "2.00 (1.50 to ∞)"
    assert words(Interval(2.0, -math.inf, math.inf)) == "2.00"
    assert words(Interval(math.inf, 1.0, math.inf)) == "no peak in sight"
