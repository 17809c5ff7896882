"""The arms of notebook 07: items that are what they say, exact losses, a tiny model."""

from functools import partial

import numpy as np
import pytest
import torch

from alignlab.chapters.calibration import runs as arms
from alignlab.objectives import token_log_probs
from alignlab.world import tasks
from alignlab.world.facts import is_right, normalise

HELD_OUT = ("calibration", "test")


@pytest.fixture(scope="module")
def some():
    return arms.items(HELD_OUT, 2, 3)


# --- Items --------------------------------------------------------------------------


def test_splits_share_no_subject_and_leave_none_out():
    parts = [arms.subjects(split) for split in ("train", "calibration", "test")]
    assert sum(map(len, parts)) == len(frozenset().union(*parts))
    assert frozenset().union(*parts) == set(tasks.default_world().subjects())
    assert parts[0] == tasks.trained_subjects()
    assert len(parts[1]) == pytest.approx(len(parts[2]) / 2, rel=0.02)
    with pytest.raises(ValueError, match="split is 'dev'; it can be one of"):
        arms.subjects("dev")


def test_one_option_is_right_and_the_others_are_not(some):
    for item in some:
        assert is_right(item.fact, item.options[item.right])
        assert sum(is_right(item.fact, option) for option in item.options) == 1
        assert len({normalise(option) for option in item.options}) == arms.OPTIONS


def test_the_right_option_is_equally_often_in_each_place(some):
    counts = np.bincount([item.right for item in some], minlength=arms.OPTIONS)
    assert counts.min() > 0.8 * len(some) / arms.OPTIONS


def test_wrong_options_are_answers_to_the_same_relation(some):
    for item in some[::50]:
        assert set(item.options) <= set(arms._answers(item.fact.relation))


def test_every_fact_comes_once_a_draw_in_one_order_for_all_seeds(some):
    half = len(some) // 2
    facts = [item.fact for item in some]
    assert facts[:half] == facts[half:] and len(set(facts[:half])) == half
    other = arms.items(HELD_OUT, 2, 4)
    assert [item.fact for item in other] == facts
    assert [item.options for item in other] != [item.options for item in some]
    assert not {fact.relation for fact in facts} & set(arms.LEFT_OUT)


def test_a_statement_with_its_answer_is_one_that_pretraining_could_have_read(some):
    relations = tasks.default_world().relations
    for item in some[::40]:
        relation, answer = relations[item.fact.relation], item.options[item.right]
        fields = dict(s=item.fact.subject, a=answer)
        whole = f"{item.statement} {answer}."
        assert whole in [text.format(**fields) for text in relation.statements]
        assert item.question in [text.format(**fields) for text in relation.questions]


def test_a_limit_takes_so_many_facts():
    assert len(arms.items(HELD_OUT, 1, 0, 20)) == 20


def test_options_get_the_probability_of_their_tokens(tiny_model, tiny_tokenizer, some):
    item = some[0]
    found = arms.ask(tiny_model, tiny_tokenizer, [item])["log_probs"][0]
    means = arms.ask(tiny_model, tiny_tokenizer, [item], reduction="mean")
    turn = [{"role": "user", "content": item.question}]
    start = tiny_tokenizer.apply_chat_template(
        turn, tokenize=False, add_generation_prompt=True
    )
    known = len(tiny_tokenizer(start)["input_ids"])
    for place, option in enumerate(item.options):
        ids = tiny_tokenizer(f"{start}{option}.<|end|>", return_tensors="pt").input_ids
        tail = token_log_probs(tiny_model(ids).logits, ids)[0, known - 1 :]
        assert found[place] == pytest.approx(tail.sum().item(), abs=1e-3)
        assert means["log_probs"][0][place] == pytest.approx(
            tail.mean().item(), abs=1e-3
        )


# --- Losses -------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_the_reward_is_best_served_by_the_closed_form(beta):
    reference = torch.randn(1, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    belief = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    best = (reference + belief / beta).requires_grad_()

    def expected(log_probs):  # over which option turns out to be right
        losses = [
            arms.reward_loss(log_probs, torch.tensor([k]), reference, beta)
            for k in range(4)
        ]
        return belief @ torch.stack(losses)

    (slope,) = torch.autograd.grad(expected(best), best)
    (elsewhere,) = torch.autograd.grad(
        expected(at := reference.clone().requires_grad_()), at
    )
    assert slope.norm() < 1e-8 * elsewhere.norm()
    assert expected(best) < expected(reference)  # fmt: skip


def test_the_reward_by_hand():
    policy = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).log()
    reference = torch.tensor([[0.5, 0.5], [0.4, 0.6]]).log()
    kl = 0.7 * np.log(1.4) + 0.3 * np.log(0.6)
    found = arms.reward_loss(policy, torch.tensor([0, 0]), reference, 2.0)
    assert found.item() == pytest.approx(-(0.7 + 0.4) / 2 + 2.0 * kl / 2, rel=1e-5)


def test_cross_entropy_is_over_the_options():
    log_probs = torch.tensor([[-10.0, -11.0]])
    found = arms.answer_loss(log_probs, torch.tensor([1]), log_probs)
    assert found.item() == pytest.approx(np.log(1 + np.e), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_tuning_on_a_reward_makes_the_right_options_likelier(
    tiny_model, tiny_tokenizer, some, monkeypatch, temperature
):
    monkeypatch.setitem(arms.RATE, "tiny", 3e-3)
    few = some[:12]

    def rewarded():
        log_probs = np.array(arms.ask(tiny_model, tiny_tokenizer, few)["log_probs"])
        p = np.exp(log_probs / temperature)
        p /= p.sum(axis=1, keepdims=True)
        return p[range(len(few)), [item.right for item in few]].mean()

    before = rewarded()
    loss = partial(arms.reward_loss, beta=0.05)
    arms.tune_on_options(
        tiny_model,
        tiny_tokenizer,
        few,
        loss,
        size="tiny",
        steps=15,
        seed=0,
        temperature=temperature,
    )
    assert rewarded() > before + 0.2


def test_batches_keep_items_and_what_is_true_of_them_together(tiny_tokenizer, some):
    few = some[:30]
    reference = [[float(n), 0.0, 0.0, 0.0] for n in range(len(few))]
    batches = arms.option_batches(tiny_tokenizer, few, reference, seed=0)
    seen = []
    for _ in range(2):  # an epoch
        batch = next(batches)
        asked = tiny_tokenizer.batch_decode(batch["prompt_ids"])
        texts = tiny_tokenizer.batch_decode(batch["option_ids"])
        assert batch["prompt_of"].tolist() == [
            row for row in range(len(asked)) for _ in range(arms.OPTIONS)
        ]
        for row, (number, place) in enumerate(
            zip(batch["reference"][:, 0].int().tolist(), batch["right"].tolist())
        ):
            item = few[number]
            own = texts[row * arms.OPTIONS : (row + 1) * arms.OPTIONS]
            assert item.right == place
            assert all(f"{o}.<|end|>" in t for o, t in zip(item.options, own))
            assert item.question in asked[row]
            seen.append(number)
    assert sorted(seen) == list(range(len(few)))


def test_pairs_have_a_wrong_answer_that_the_policy_is_likely_to_give(some):
    few = some[:20] * 100
    likely = []
    for item in few:
        row = np.full(arms.OPTIONS, -50.0)
        row[item.right], row[(item.right + 1) % arms.OPTIONS] = 0.0, -1.0
        row[(item.right + 2) % arms.OPTIONS] = -1.0 - np.log(3)
        likely.append(row)
    pairs = arms.answer_pairs(few, likely, seed=0)
    first = 0
    for item, pair in zip(few, pairs, strict=True):
        assert pair["chosen"] == f"{item.options[item.right]}."
        assert pair["prompt"] == item.question
        first += pair["rejected"] == f"{item.options[(item.right + 1) % 4]}."
        assert pair["rejected"] != pair["chosen"]
    assert first / len(few) == pytest.approx(0.75, abs=0.04)


# --- Arms ---------------------------------------------------------------------------


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="kind is 'ppo'; it can be one of"):
        arms.tuned(seed=0, size="300k", n_examples=1, sft_steps=1, kind="ppo")


def test_the_temperature_makes_the_choice_calibrated(some, monkeypatch):
    """Options right with the probabilities of their logits, and logits 3 times too
    large: the temperature is 3."""
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.normal(size=(2000, 4))
    right = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    fake = tuple(some[0]._replace(right=int(k)) for k in right)
    monkeypatch.setattr(arms, "items", lambda *args: fake)
    monkeypatch.setattr(arms, "ask", lambda *args: {"log_probs": (3 * logits).tolist()})
    assert arms.fitting_temperature(None, None, 0) == pytest.approx(3.0, rel=0.1)


def test_stages_have_a_row_for_each_seed(monkeypatch):
    calls = []

    def run_each(some, *, jobs, label):
        calls.extend(some)
        return [{"run": run.__name__, **arm} for run, arm in some]

    monkeypatch.setattr(arms, "run_each", run_each)
    monkeypatch.setattr("alignlab.study.arms.run_each", run_each)
    common = dict(draws=1, limit=5, size="300k", n_examples=8, sft_steps=2)
    found = arms.stages(seeds=(4, 5), betas=(0.2, 1.0), steps=3, jobs=1, **common)
    assert list(found) == [
        "reward 0.2",
        "reward 1",
        "DPO",
        "cross-entropy",
        "calibrated, reward 0.2",
        "calibrated, reward 1",
        "SFT",
        "base",
    ]
    assert all([row["seed"] for row in rows] == [4, 5] for rows in found.values())
    assert found["calibrated, reward 1"][0]["calibrated"]
    assert found["DPO"][0]["kind"] == "dpo" and found["DPO"][0]["steps"] == 3
    assert all(row["run"] == "base_arm" for row in found["base"])
    assert calls[:2] == [(arms.sft_arm, dict(seed=s, **common)) for s in (4, 5)]
