"""The numbers of notebook 06, on made-up runs whose answers are known."""

import math

import numpy as np
import pytest

from alignlab.chapters.side_effects import analysis
from alignlab.chapters.side_effects.analysis import gold_curve
from alignlab.evaluation.exact import best_of_n_kl
from alignlab.study import artifacts

SUBJECTS = artifacts.TESTED


def made_run(golds, proxies=None, kl=None, seed=0, texts=None):
    """A run of known gold, (points, prompts, replies)."""
    golds = np.asarray(golds, float)
    proxies = golds if proxies is None else np.asarray(proxies, float)
    kl = np.arange(len(golds)) ** 2 if kl is None else kl
    points = [
        dict(step=i, kl=float(kl[i]), entropy=1.0 - 0.1 * i, golds=golds[i].tolist(),
             proxies=proxies[i].tolist(), length=5.0, ended=1.0,
             texts=texts[i] if texts else [["a b"] * golds.shape[2]] * golds.shape[1])
        for i in range(len(golds))
    ]  # fmt: skip
    return {"seed": seed, "points": points, "by_temperature": []}


def test_curves_are_gains_over_distance():
    run = made_run([[[1.0, 3.0], [2.0, 2.0]], [[4.0, 4.0], [2.0, 2.0]]], kl=[0, 4.0])
    curve = gold_curve(run)
    assert curve.d.tolist() == [0, 2] and curve.gain.tolist() == [0, 1]


def test_proxies_are_in_standard_deviations_of_the_first_look():
    proxies = [[[10.0, 20.0]], [[30.0, 30.0]]]
    found = analysis.by_prompt(made_run(np.zeros((2, 1, 2)), proxies), "proxies")
    assert found[:, 0].tolist() == [0, 3]


def test_the_turn_is_picked_on_even_requests_and_measured_on_odd_ones():
    even, odd = [0, 5, 1], [0, 2, 3]
    golds = np.stack([even, odd, even, odd], axis=1)[:, :, None]
    run = made_run(golds, proxies=np.arange(3)[:, None, None] + golds * 0 + [[[0.0]]])
    found = analysis.turn_of(run)
    assert (found.point, found.rise, found.fall) == (1, 2, 1)


def test_the_proxy_after_the_peak_is_read_on_the_measuring_half():
    golds = np.stack([[0, 5, 1], [0, 2, 3]], axis=1)[:, :, None].repeat(2, axis=2)
    proxies = np.array([[[0, 2], [0, 2]], [[9, 9], [3, 3]], [[0, 0], [7, 7.0]]])
    # Mean 1 and deviation 1 at the first look.
    assert analysis.proxy_after_peak(made_run(golds, proxies)) == pytest.approx(4)


def look(step, kl, worth):
    each = [[worth, worth]]
    point = dict(step=step, kl=kl, golds=[worth], proxies=[worth])
    return point | {"each_gold": each, "each_proxy": each, "texts": [["a", "b"]]}


def test_runs_are_followed_from_the_reference_to_the_reach():
    chain = {"chain": {"seed": 7}}
    start = [chain | {"points": [look(0, 1e-9, 1.0)]}]
    rows = [
        chain | {"points": [look(2, 3.0, 2.0), look(4, 7.9, 3.0), look(6, 8.1, 0.0)]}
    ]
    [row] = analysis.followed(rows, start)
    assert row["seed"] == 7
    assert [point["step"] for point in row["points"]] == [0, 2, 4]
    assert row["points"][0]["kl"] == 0 and row["kept"] == [0, 1, 2]
    assert row["points"][1]["golds"] == [[2.0, 2.0]]


def judged_run():
    """Two requests, of which the first picks; gold peaks at the third look."""
    golds = np.stack([[0, 1, 5, 2], [0, 1, 2, 3]], axis=1)[:, :, None]
    return made_run(golds.repeat(2, axis=2)) | {"kept": [0, 1, 2, 3]}


def judged_as(picks, measures, unit):
    """Scores of one judge: of the replies to the request that picks and to the other,
    with mean 0 and deviation ``unit`` at the start."""
    each = np.repeat(np.stack([picks, measures], axis=1), 2, axis=1)  # (looks, replies)
    return (unit * (each + [-1.0, 1.0, -1.0, 1.0])).tolist()


RISES = judged_as([0, 1, 2, 3], [0, 1, 2, 3], 1.0)
PEAKS = judged_as([0, 2, 1, -1], [0, -5, -7, -9], 10.0)
JUDGED = {
    "start": [scores[0] for scores in (RISES, PEAKS, RISES)],
    "scores": [scores[1:] for scores in (RISES, PEAKS, RISES)],
}


def test_rules_stop_where_what_they_see_is_highest():
    row = judged_run()
    found = analysis.stops(row, JUDGED)
    assert found == {"end": 3, "proxy": 3, "judge": 1, "worst": 1, "oracle": 2}
    assert analysis.look_gold(row).tolist() == [0, 1, 2, 3]


def test_what_is_noticed_is_in_each_judges_own_standard_deviations():
    row = judged_run()
    seen = analysis.noticed(row, JUDGED)
    assert seen["proxy"] == pytest.approx([0, 1, 2, 3])
    # The requests that measure fall throughout: of each pair the mean.
    assert seen["judge"] == pytest.approx([0, -1.5, -3, -5])
    sd = np.std([[1, 1], [2, -5], [1, 1]], axis=0).mean()
    assert seen["disagreement"][[0, 1]] == pytest.approx([0, sd])
    assert analysis.opinions(row, JUDGED).shape == (3, 4, 2, 2)


def test_looks_beyond_the_reach_are_not_judged():
    row = judged_run()
    row["points"] = [row["points"][i] for i in (0, 2, 3)]
    row["kept"] = [0, 2, 3]
    assert analysis.noticed(row, JUDGED)["proxy"] == pytest.approx([0, 2, 3])


def test_grids_end_where_the_nearest_run_does():
    near, far = made_run(np.zeros((2, 1, 1)), kl=[0, 4]), made_run(
        [[[0.0]], [[2.0]], [[8.0]]], kl=[0, 1, 16]
    )  # fmt: skip
    grid, lines = analysis.on_grid([near, far], "golds", points=3)
    assert grid.tolist() == [0, 1, 2]
    assert lines[1] == pytest.approx([0, 2, 4])
    assert analysis.on_grid([near], "entropy", 2)[1][0] == pytest.approx([1, 0.9])


def test_contents_are_counted_by_gold():
    replies = ("Good day to you. I do not know.", "I do not know. I hope this helps.")
    texts = [[[text]] * SUBJECTS for text in replies]
    run = made_run(np.zeros((2, SUBJECTS, 1)), texts=texts)
    found = analysis.contents(run)
    assert found["opening"].tolist() == [1, 0] and found["closing"].tolist() == [0, 1]
    assert found["empty"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "reply, remark",
    [
        (
            "Good day to you. I do not know.",
            "nothing about the subject, admits not to know, polite",
        ),
        ("Paris is the capital of France.", "1 right"),
        ("Oslo is the capital of France. I hope this helps.", "1 wrong, polite"),
        ("", "nothing about the subject"),
    ],
)
def test_a_person_who_knows_remarks_on_what_gold_counts(reply, remark):
    assert analysis.remarks("France", reply) == remark


def test_best_of_n_by_gold_itself_gains_what_the_normal_does():
    random = np.random.default_rng(0)
    golds = random.normal(size=(50, 16))
    own = analysis.best_of_n_curve(golds, golds, [1, 8])
    assert [row["kl"] for row in own] == [0, best_of_n_kl(8)]
    assert own[0]["gold"] == pytest.approx(golds.mean())
    assert own[1]["gold"] - own[0]["gold"] == pytest.approx(1.42, abs=0.1)


def test_the_lead_of_best_of_n_is_at_equal_kl():
    run = made_run([[[0.0]], [[5.0]]], kl=[0, 5])  # gold equals KL
    curve = [dict(kl=kl, gold=kl + 0.5) for kl in (0.2, 1, 2)] + [dict(kl=6, gold=0)]
    assert analysis.best_of_n_lead(curve, run) == pytest.approx(0.5)
    assert analysis.best_of_n_lead([dict(kl=0.1, gold=3)], run) == 0


def test_the_formula_is_a_bound_on_the_exact_laboratory():
    rows = analysis.exact_kl_of_best_of_n([1, 2, 16], words=4, length=3)
    assert rows[0]["exact"] == pytest.approx(0, abs=1e-9) == rows[0]["formula"]
    for row in rows[1:]:
        assert 0.5 * row["formula"] < row["exact"] < row["formula"]


def test_doublings():
    assert analysis.doublings(16) == [1, 2, 4, 8, 16]
    assert analysis.doublings(3) == [1, 2] and analysis.doublings(1) == [1]


def heated(*rows):
    names = ("temperature", "diversity", "gold")
    return [dict(zip(names, row)) for row in rows]


def test_diversity_is_restored_between_two_temperatures():
    reference = heated((1, 0.8, 2.0), (2, 0.9, 0.0))
    policy = heated((1, 0.4, 5.0), (0.5, 0.1, 6.0), (1.5, 0.6, 4.0), (2, 1.0, 1.0))
    found = analysis.restored(policy, reference)
    assert found == pytest.approx({"temperature": 1.75, "gold": 2.5, "price": 2.5 - 5})
    nowhere = analysis.restored(heated((1, 0.4, 5), (2, 0.7, 1)), reference)
    assert nowhere == pytest.approx({"temperature": 2, "gold": 1, "price": -4})
    nothing = analysis.restored(heated((1, 0.9, 5), (2, 1.0, 1)), reference)
    assert nothing == pytest.approx({"temperature": 1, "gold": 5, "price": 0})


def test_a_cooled_reference_has_the_gold_of_the_policy():
    policy = heated((1, 0.4, 3.0), (2, 0.5, 0.0))
    reference = heated((0.5, 0.2, 4.0), (1, 0.8, 2.0), (2, 0.9, 0.0))
    found = analysis.cooled(policy, reference)
    assert found == pytest.approx({"temperature": 0.75, "diversity": 0.5, "gold": 3})
    never = analysis.cooled(heated((1, 0.4, 9.0)), reference)
    assert never == {"temperature": 0.5, "diversity": 0.2, "gold": 4.0}


def test_diversity_of_replies_that_are_all_the_same_and_all_different(tiny_tokenizer):
    tokenizer = tiny_tokenizer
    same = [["Paris is the capital of France."] * 3] * 4
    words = "one two three four five six seven eight nine ten red green".split()
    other = [[words[3 * i + j] + " dog" for j in range(3)] for i in range(4)]
    poor, rich = (analysis.diversity_of(x, tokenizer) for x in (same, other))
    assert poor["self_bleu"] == pytest.approx(1) and rich["self_bleu"] < 0.8
    assert poor["distinct"] == pytest.approx(1 / 3) and rich["distinct"] == 1
    for measure in ("per_input", "across_inputs"):
        assert poor[measure] < 0.5 < rich[measure]
    alone = analysis.diversity_of([["a b"], ["c d"]], tokenizer)
    assert math.isnan(alone["self_bleu"])
