"""The closer look: gradients of single pairs, and what a run tells of its pairs."""

import copy
import itertools
import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from alignlab.chapters.dpo import closer
from alignlab.models.positions import completion_log_probs
from alignlab.models.reward import reward_model_from
from alignlab.study import artifacts
from alignlab.training.sft import collate, encode
from alignlab.world import gold

SUBJECTS = {"train": ("France", "gold", "Norway", "iron"), "test": ("Peru", "argon")}
REPLIES = ["One.", "Two words.", "Oslo, and three.", "The yen."]


# --- Gradients ----------------------------------------------------------------------


def log_ratio(policy, reference, tokenizer, pair, side):
    """By another way than the code's: each completion read alone."""
    texts = encode(tokenizer, [{**pair, "completion": pair[side]}])
    batch = collate(texts, tokenizer.pad_token_id)
    with torch.no_grad():
        before = completion_log_probs(reference, **batch).sum()
    return completion_log_probs(policy, **batch).sum() - before


def test_a_pairs_gradient_is_that_of_its_loss_read_alone(tiny_model, tiny_tokenizer):
    reference = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    pairs = [
        dict(prompt="Where is Oslo?", chosen="In Norway.", rejected="The yen."),
        dict(prompt="Is gold a metal?", chosen="Yes.", rejected="In one word. Oslo."),
    ]
    models = tiny_model, reference, tiny_tokenizer
    measured = closer.pair_gradients(*models, pairs, 0.7)
    for number, pair in enumerate(pairs):
        chosen, rejected = (log_ratio(*models, pair, s) for s in ("chosen", "rejected"))
        margin = chosen - rejected
        loss = torch.log1p(torch.exp(-0.7 * margin))
        slopes = torch.autograd.grad(loss, list(tiny_model.parameters()))
        length = math.sqrt(sum((slope**2).sum().item() for slope in slopes))
        assert measured["margin"][number] == pytest.approx(margin.item(), abs=1e-3)
        assert measured["length"][number] == pytest.approx(length, rel=1e-3)


# --- The arm ------------------------------------------------------------------------


@pytest.fixture
def chain(monkeypatch, tiny_model, tiny_tokenizer):
    """A chain of a random policy, whose comparisons prefer what comes first in REPLIES;
    those about test subjects the other way round."""

    def pairs(split, order):
        request = gold.request(SUBJECTS[split][0])
        two = [*itertools.combinations(order, 2)]
        return [dict(prompt=request, chosen=a, rejected=b) for a, b in two]

    class TinyChain:
        base, n_pairs = "1m", 6

        def __init__(self, *, seed):
            self.seed = seed

        def policy(self):
            return copy.deepcopy(tiny_model), tiny_tokenizer

        def comparisons(self):
            return pairs("train", REPLIES)

        def held_out_comparisons(self, n, flips):
            assert flips == 0.0, "labels of unseen pairs are right"
            return pairs("test", REPLIES[::-1])[:n]

        def reward_model(self):
            return reward_model_from(tiny_model, 0), tiny_tokenizer

    monkeypatch.setattr(closer, "Chain", TinyChain)
    monkeypatch.setattr(artifacts, "subjects", SUBJECTS.get)
    monkeypatch.setattr(artifacts, "MAX_NEW_TOKENS", 8)
    # More steps from six pairs, and larger ones.
    recipe = {**closer.DPO_RECIPE, "batch_size": 1, "learning_rate": 1e-3}
    monkeypatch.setattr(closer, "DPO_RECIPE", recipe)
    return dict(seed=3)


ARM = dict(n_used=4, follow=3, n=2, loss_type="sigmoid")


@pytest.mark.network
def test_the_series_say_what_the_gradients_say(chain):
    row = closer.closer_arm(chain=chain, **ARM)
    json.dumps(row)
    assert row["stopped"] is None and len(row["points"][-1]["golds"]) == 2
    assert [point["step"] for point in row["points"]] == [2, 4]
    series = closer.displacement(row)
    assert series["pairs"] == [0, 1, 2, 3, 4]
    assert all(len(values) == 5 for values in series.values())
    margin = series["held_out/chosen"][-1] - series["held_out/rejected"][-1]
    assert np.mean(row["gradients"]["margin"]) == pytest.approx(margin, abs=1e-4)
    share = np.mean(np.array(row["gradients"]["margin"]) > 0)
    assert series["held_out/accuracy"][-1] == pytest.approx(share)


@pytest.mark.network
def test_a_run_learns_from_its_own_pairs_and_sft_from_the_others(chain, monkeypatch):
    learnt, imitated = [], []
    run_dpo, finetune = closer.run_dpo, closer.finetune
    monkeypatch.setattr(
        closer,
        "run_dpo",
        lambda policy, tokenizer, pairs, *a, **o: (
            learnt.append(pairs) or run_dpo(policy, tokenizer, pairs, *a, **o)
        ),
    )
    monkeypatch.setattr(
        closer,
        "finetune",
        lambda policy, tokenizer, rows, **o: (
            imitated.append(rows) or finetune(policy, tokenizer, rows, **o)
        ),
    )
    plain = closer.closer_arm(chain=chain, **ARM)
    after_sft = closer.closer_arm(chain=chain, **ARM, sft_steps=20)
    assert learnt[0] == learnt[1] and len(learnt[0]) == 4
    [rows] = imitated
    both = {(p["chosen"], p["rejected"]) for p in learnt[0]}
    assert len(rows) == 2 and len(both) == 4
    others = [pair for pair in itertools.combinations(REPLIES, 2) if pair not in both]
    assert sorted(r["completion"] for r in rows) == sorted(a for a, _ in others)
    # Ratios are to the policy that DPO began with; KL is to the chain's own.
    margin = closer.at_end([after_sft], "train/chosen")[0]
    assert (
        abs(margin) < 5
        and after_sft["points"][-1]["kl"] > 2 * plain["points"][-1]["kl"]
    )


@pytest.mark.network
def test_an_exploded_run_is_told(chain, monkeypatch):
    recipe = {**closer.DPO_RECIPE, "learning_rate": 1e30}
    monkeypatch.setattr(closer, "DPO_RECIPE", recipe)
    row = closer.closer_arm(chain=chain, **ARM)
    assert "loss" in row["stopped"] and row["gradients"] is None


def test_kinds_differ_in_their_loss_and_sft_alone():
    sizes = dict(n_used=4, follow=2, sft_steps=7, n=1)
    groups = closer.calls(chains=[{"seed": 0}, {"seed": 1}], **sizes)
    json.dumps([arm for group in groups.values() for _, arm in group])
    assert [*groups] == ["DPO", "unweighted", "DPOP", "SFT first"]
    for kind, calls in groups.items():
        for (_, plain), (_, arm) in zip(groups["DPO"], calls, strict=True):
            changed = {k for k in arm if arm[k] != plain.get(k)}
            expected = {"DPO": set(), "SFT first": {"sft_steps"}}
            assert changed == expected.get(kind, {"loss_type"})


# --- Numbers and figures ------------------------------------------------------------


def a_row(seed, margins, lengths, golds=(0.0, 1.0)):
    history = {"step": [1, 2, 3], "held_out/accuracies": [None, 0.6, 0.7]}
    for split in ("train", "held_out"):
        history[f"{split}/accuracies"] = [None, 0.6, 0.7]
        history[f"{split}/log_ratios/chosen"] = [None, -1.0, -2.0 - seed]
        history[f"{split}/log_ratios/rejected"] = [None, -2.0, -4.0]
    return dict(
        chain=dict(seed=seed),
        history=history,
        gradients=dict(margin=margins, length=lengths),
        points=[dict(gold=value) for value in golds],
        stopped=None,
    )


def test_series_begin_with_the_reference_and_skip_what_was_not_evaluated():
    series = closer.displacement(a_row(0, [1.0], [1.0]))
    assert series["pairs"] == [0, 64, 96]  # 32 a step
    assert series["held_out/chosen"] == [0.0, -1.0, -2.0]
    assert series["train/accuracy"] == [0.5, 0.6, 0.7]
    rows = [a_row(0, [1.0], [1.0]), a_row(1, [1.0], [1.0])]
    assert closer.at_end(rows, "held_out/chosen") == [-2.0, -3.0]


def test_weights_are_the_probability_of_the_wrong_order():
    margins = [0.0, 10 * math.log(3), -10 * math.log(3)]  # times a beta of 0.1
    row = a_row(0, margins, [2.0, 1.0, 3.0])
    assert closer.weights(row) == pytest.approx([0.5, 0.25, 0.75])
    assert closer.rank_correlation(row) == pytest.approx(1.0)
    row["gradients"]["length"] = [2.0, 3.0, 1.0]
    assert closer.rank_correlation(row) == pytest.approx(-1.0)


def test_gold_is_subtracted_on_the_same_chain():
    ours = [a_row(0, [1.0], [1.0], (9, 3)), a_row(1, [1.0], [1.0], (9, 5))]
    others = [a_row(1, [1.0], [1.0], (9, 1)), a_row(0, [1.0], [1.0], (9, 2))]
    assert closer.gold_minus(ours, others) == [1, 4]


def test_figures_show_every_run():
    rows = [a_row(s, [0.0, 9.0, -4.0], [2.0, 1.0, 3.0]) for s in (0, 1)]
    figure = closer.log_ratios({"unweighted": rows, "DPO": rows, "DPOP": rows})
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["DPO", "DPOP", "unweighted"]
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 2 * (2 + 1)  # two sides, two seeds and their mean
    left, right = closer.pulls(rows).axes
    assert left.lines[0].get_ydata().tolist() == [2.0, 1.0, 3.0]
    weights = closer.weights(rows[0])
    assert right.lines[0].get_ydata() == pytest.approx(
        [2.0, 1.0, 3.0] / (0.1 * weights)
    )
    plt.close("all")
