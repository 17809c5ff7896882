"""The runs of notebook 08 that over-fit, and their measures, on a tiny model."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from alignlab.chapters.calibration.artifacts import HELD_OUT, Item, subjects
from alignlab.chapters.recalibration import models, models_analysis, models_figures
from alignlab.study import scale
from alignlab.world.facts import Fact


def item(subject, right, exposure=0):
    fact = Fact(subject, "capital", ("Oslo",), exposure)
    options = ("Oslo", "Paris", "Lima", "Rome")
    start, question = f"The capital of {subject} is", f"Where is {subject}?"
    return Item(fact, start, question, options, options.index(right))


def facts_of(n=6):
    answers = ("Oslo", "Paris", "Lima")
    fitting, test = (sorted(subjects(split)) for split in HELD_OUT)
    names = [(fitting, test)[i % 2][i] for i in range(n)]
    return tuple(item(s, answers[i % 3], 200 * i) for i, s in enumerate(names))


ITEMS = facts_of()
RECIPE = dict(base="tiny", per_kind=3, held_out=3, checkpoints=[2, 4])


@pytest.fixture
def tiny(monkeypatch, tiny_model, tiny_tokenizer):
    """A tiny base model, anew for each run, six items, and a learning rate for it."""
    start = {k: v.clone() for k, v in tiny_model.state_dict().items()}

    def load_base(base):
        tiny_model.load_state_dict(start)
        return tiny_model, tiny_tokenizer

    monkeypatch.setattr(models, "trainable_base", load_base)
    monkeypatch.setattr(models, "draw_balanced", lambda splits, per_kind, seed: ITEMS)
    monkeypatch.setitem(scale.RATES["tasks"], "tiny", 5e-3)
    return tiny_model, tiny_tokenizer


# --- Items ----------------------------------------------------------------------------


def test_kinds_follow_from_exposure_and_shares():
    fact = Fact("X", "capital", ("Oslo",))
    kinds = [
        models.kind_of(Fact("X", "capital", ("Oslo",), exposure))
        for exposure in (0, 1, 5, 6, 99, 100)
    ]
    assert kinds == ["never", "tail", "tail", "rare", "rare", "known"]
    two = ("Oslo", "Rome")
    contested = Fact("X", "capital", ("Oslo",), 50, two, (0.6, 0.4))
    assert models.kind_of(contested) == "contested"
    assert models.kind_of(fact) == "never"


def test_balanced_items_have_as_many_of_each_kind_and_other_facts_each_seed():
    items = models.draw_balanced(("train",), 4, 0)
    kinds = [models.kind_of(i.fact) for i in items]
    assert {kinds.count(kind) for kind in models.KINDS} == {4}
    assert {i.fact.subject for i in items} <= subjects("train")
    other = models.draw_balanced(("train",), 4, 1)
    assert {i.fact for i in items} != {i.fact for i in other}
    assert items == models.draw_balanced(("train",), 4, 0)


# --- Runs -----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", models.STEPS)
def test_every_loss_teaches_the_answers(tiny, loss):
    model, tokenizer, states = models.train_on_answers(
        ITEMS, loss=loss, seed=0, base="tiny", checkpoints=[30]
    )
    result = models.log_probs_of(models.load(model, states[0]), tokenizer, ITEMS)
    assert result.argmax(axis=1).tolist() == [i.right for i in ITEMS]


def test_an_unknown_loss_is_an_error(tiny):
    with pytest.raises(ValueError, match="loss is 'hinge'; it can be one of"):
        models.train_on_answers(
            ITEMS, loss="hinge", seed=0, base="tiny", checkpoints=[1]
        )


def test_a_checkpoint_is_the_run_that_ends_there(tiny):
    short, long = (
        models.train_on_answers(
            ITEMS, loss=models.PLAIN, seed=0, base="tiny", checkpoints=steps
        )[2]
        for steps in ([3], [1, 3, 6])
    )
    assert len(long) == 3
    for name, value in short[0].items():
        torch.testing.assert_close(value, long[1][name])
    assert any((long[1][n] != long[2][n]).any() for n in long[1])


def test_slower_runs_take_as_many_times_the_updates(tiny, monkeypatch):
    taken = {}
    monkeypatch.setattr(models, "train", lambda *args, **kwargs: taken.update(kwargs))
    models.train_on_answers(
        ITEMS, loss=models.PLAIN, seed=0, base="tiny", checkpoints=[2, 4], slower=5
    )
    assert taken["steps"] == 20 and taken["learning_rate"] == pytest.approx(1e-3)
    assert taken["schedule"] == "constant"


def test_a_row_has_all_that_was_asked_for(tiny):
    row = models.run_arm(
        seed=0, loss=models.PLAIN, laplace=True, rate=models.DROPOUT, **RECIPE
    )
    n = len(ITEMS)
    assert np.shape(row["log_probs"]) == (2, n, 4)
    assert np.shape(row["passes"]) == (models.PASSES, n, 4)
    assert np.shape(row["laplace"]) == (len(models.PRECISIONS), n, 4)
    assert row["best"] in (0, 1) and len(row["kind"]) == n
    passes = np.array(row["passes"])
    assert np.abs(passes[0] - passes[1]).max() > 1e-3
    strong = softmax(np.array(row["laplace"][-1]), axis=1)  # the strongest prior
    model = softmax(np.array(row["log_probs"][row["best"]]), axis=1)
    np.testing.assert_allclose(strong, model, atol=0.02)


def test_members_see_other_orders_and_the_same_items(tiny):
    rows = [
        models.run_arm(seed=0, member=m, loss=models.PLAIN, **RECIPE) for m in (0, 1)
    ]
    assert rows[0]["right"] == rows[1]["right"]
    # Six items are one batch, so only its inner order differs: nearly the same model.
    np.testing.assert_allclose(
        rows[0]["log_probs"], rows[1]["log_probs"], rtol=0.01, atol=0.05
    )


def test_calls_share_examples_and_give_the_rival_the_compute():
    calls = models.calls(seeds=(3, 4), **{**RECIPE, "base": "300k"})
    assert all(len(group) == 2 for group in calls.values())
    assert set(models.STEPS) | {"dropout", models.LONG} < set(calls)
    arms = {name: group[0][1] for name, group in calls.items()}
    assert arms["dropout"]["rate"] == models.DROPOUT
    assert arms[models.LONG]["slower"] == models.MEMBERS
    assert [arms[f"member {m}"]["member"] for m in range(2, 6)] == [1, 2, 3, 4]
    assert {arm["seed"] for arm in arms.values()} == {3}
    assert arms["focal"]["loss"] == "focal" and arms["member 2"]["loss"] == models.PLAIN


# --- Laplace --------------------------------------------------------------------------


def test_gradients_of_the_gain_are_finite_differences(tiny):
    model, tokenizer = models.trainable_base("tiny")
    gradients = models.gain_gradients(model, tokenizer, ITEMS)
    head, step = model.get_output_embeddings(), 1e-3
    assert gradients.shape == (len(ITEMS), 4, head.weight.shape[1])
    for feature in (0, 7):

        def change(gain, feature=feature):
            def scale(module, inputs):
                gains = torch.ones(head.weight.shape[1])
                gains[feature] = gain
                return (inputs[0] * gains,)

            hook = head.register_forward_pre_hook(scale)
            try:
                return models.log_probs_of(model, tokenizer, ITEMS)
            finally:
                hook.remove()

        slope = (change(1 + step) - change(1 - step)) / (2 * step)
        np.testing.assert_allclose(gradients[:, :, feature], slope, atol=0.02)


# --- Measures -------------------------------------------------------------------------


def row_of(n=600, sharp=(1.0, 3.0), seed=0):
    """A run whose answers are calibrated at its first checkpoint and then too sure."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 4))
    right = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return {
        "log_probs": [log_softmax(s * logits, axis=1).tolist() for s in sharp],
        "right": right.tolist(),
        "rival": [-1] * n,
        "share": [1.0] * n,
        "exposure": [0] * n,
        "fact": list(range(n)),
        "test": (np.arange(n) % 3 > 0).tolist(),
        "relation": ["capital"] * n,
        "kind": [models.KINDS[i % 5] for i in range(n)],
        "best": 0,
    }


def test_the_best_checkpoint_is_that_of_the_fitting_subjects():
    row = row_of()
    assert models.best_checkpoint(row["log_probs"], row) == 0
    flipped = row | {"test": [not t for t in row["test"]]}
    swapped = row["log_probs"][::-1]
    assert models.best_checkpoint(swapped, flipped) == 1


def test_measures_are_of_test_subjects_at_the_checkpoint():
    row = row_of(6000)
    early, late = models_analysis.along(row)
    assert abs(early["squared"]) < 0.003 < 0.02 < late["squared"]
    assert early["accuracy"] == late["accuracy"]
    assert models_analysis.at_end(row) == late
    assert models_analysis.at_best(row) == early
    test = np.array(row["test"])
    p = softmax(np.array(row["log_probs"][0]), axis=1)[test]
    right = np.array(row["right"])[test]
    nll = -np.log(p[np.arange(len(right)), right]).mean()
    assert early["nll"] == pytest.approx(nll)


def test_a_temperature_mends_the_end_of_a_run():
    row = row_of(6000)
    mended = models_analysis.tempered(row, -1)
    assert mended["squared"] < 0.1 * models_analysis.at_end(row)["squared"]
    assert mended["accuracy"] == models_analysis.at_end(row)["accuracy"]


def test_members_that_err_apart_are_better_together():
    row = row_of(3000)
    rng = np.random.default_rng(1)
    group = [
        row | {"log_probs": [noisy.tolist()] * 2}
        for noisy in np.array(row["log_probs"][0]) + 1.5 * rng.normal(size=(5, 3000, 4))
    ]
    alone = models_analysis.ensemble_at_best(group[:1])
    together = models_analysis.ensemble_at_best(group)
    assert alone == models_analysis.at_best(group[0])
    for name in ("nll", "brier", "squared", "aurc"):
        assert together[name] < alone[name]


def test_every_contender_is_judged_and_differences_are_by_seed():
    rows = {models.PLAIN: [row_of(seed=s) for s in (0, 1)]}
    for number in range(2, models.MEMBERS + 1):
        rows[f"member {number}"] = rows[models.PLAIN]
    rows[models.LONG] = rows[models.PLAIN]
    for row in rows[models.PLAIN]:
        row["passes"] = row["log_probs"]
        row["laplace"] = row["isotropic"] = row["log_probs"]
    rows["dropout"] = rows[models.PLAIN]
    table = models_analysis.contenders(rows)
    assert set(table) == {*models_analysis.CONTENDERS, "ensemble"}
    same = models_analysis.differences(table, "one model", "ensemble", "nll")
    assert same == pytest.approx([0, 0])  # five copies are one
    gains = models_analysis.differences(table, "MC dropout", "Laplace", "squared")
    assert min(gains) > 0  # the mean of both checkpoints is too sure


def test_kinds_have_their_own_measures():
    row = row_of()
    table = models_analysis.by_kind(row, 0)
    assert tuple(table) == models.KINDS
    shares = [table[kind]["accuracy"] for kind in models.KINDS]
    assert np.mean(shares) == pytest.approx(
        models_analysis.at_best(row)["accuracy"], abs=0.02
    )


def test_figures_name_what_they_show():
    paths = [models_analysis.along(row_of(seed=s)) for s in (0, 1)]
    figure = models_figures.over_fitting(paths, [20, 160], [20, 20])
    legend = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert legend == ["cross-entropy", "best to stop (mean)"]
    figure = models_figures.loss_paths({"cross-entropy": paths, "focal": paths}, [1, 2])
    assert figure.axes[0].get_title() == "focal"
    assert "squared calibration error" in figure.axes[0].get_ylabel()
