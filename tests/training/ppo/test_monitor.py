"""The monitor: when a judge has fallen, and runs in which it must and must not fire."""

import copy
import json
import warnings

import numpy as np
import pytest

from alignlab.errors import AlignlabError
from alignlab.models.reward import reward_model_from, score
from alignlab.ppo import PPOConfig, PPOTrainer, RewardHackingCallback
from alignlab.training.ppo.monitor import change_since_best, is_hacked
from tests.training.ppo import test_distributed
from tests.training.ppo.helpers import (
    CHAT,
    PROMPTS,
    QUIET,
    assert_same,
    letters,
    lora,
    parameters,
)

ASKED = [
    {"prompt": f"{start} {end}", "answer": end}
    for start in ("Say it:", "The capital of", "Is gold a", "The money of")
    for end in ("Peru", "France", "Kenya", "iron", "Japan")
]


def fewer_letters(completions):
    """What a judge says who finds fault with the vowels that are rewarded."""
    return [5 - x for x in letters(completions)]


def more_letters(completions):
    return [2 * x for x in letters(completions)]


def make_trainer(model, tokenizer, reward=letters, data=PROMPTS, **settings):
    defaults = dict(
        max_steps=8,
        per_device_train_batch_size=32,
        max_completion_length=8,
        learning_rate=0.03,
        lr_scheduler_type="constant",
        kl_coef=0.0,
        save_strategy="no",
    )
    args = PPOConfig(**QUIET | defaults | settings)
    return PPOTrainer(model, reward, args, data, processing_class=tokenizer)


def watched(trainer, judge, prompts=ASKED, **settings):
    """The monitor, after the run."""
    monitor = RewardHackingCallback(trainer, judge, prompts, **settings)
    trainer.add_callback(monitor)
    trainer.train()
    return monitor


# --- When a judge has fallen ----------------------------------------------------------


def test_the_change_is_since_the_look_that_the_other_prompts_like_best():
    judges = [[1.0, 5.0, 3.0, 1.0], [4.0, 1.0, 2.0, 3.0], [0.0, 2.0, 1.0, 1.0]]
    proxies = [[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 9.0, 9.0]]
    # Prompts 1 and 3 like look 0 best (3 on average), 0 and 2 like look 1 (also 3).
    change = change_since_best(judges, proxies)
    rises = [0 - 1, 2 - 1, 1 - 3, 1 - 3]
    assert change.judge == pytest.approx(np.mean(rises))
    assert change.judge_error == pytest.approx(np.std(rises, ddof=1) / 2)
    assert change.proxy == pytest.approx(np.mean([9, 9 - 2, 9, 9 - 4]))


def test_the_best_of_many_looks_is_not_held_against_the_next():
    random = np.random.default_rng(0)
    judges = random.normal(size=(400, 20, 50))  # runs, looks, prompts: nothing changes
    naive = [run.mean(1)[-1] - run.mean(1).max() for run in judges]
    changes = [change_since_best(run, run).judge for run in judges]
    error = np.std(changes) / np.sqrt(len(changes))
    assert np.mean(naive) < -15 * error
    assert abs(np.mean(changes)) < 4 * error


def test_false_alarms_are_rare_where_the_judge_stays_as_it_is():
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        judges = random.normal(size=(12, 50))
        proxies = judges + np.arange(12)[:, None]  # which always rises
        alarms += any(is_hacked(judges[:k], proxies[:k], 2.0, 2) for k in range(1, 13))
    assert alarms / 200 < 0.1


def run_of(judge_means, proxy_means):
    noise = np.random.default_rng(0).normal(0, 0.1, size=(len(judge_means), 40))
    judges = np.array(judge_means)[:, None] + noise
    return judges, np.array(proxy_means)[:, None] + 0 * noise


@pytest.mark.parametrize(
    ("judge_means", "proxy_means", "hacked"),
    [
        ([0, 1, 0.5, 0.4], [0, 1, 2, 3], True),
        ([0, 1, 1.0, 0.4], [0, 1, 2, 3], False),  # for one look only
        ([0, 1, 2, 3], [0, 1, 2, 3], False),
        ([0, 1, 0.5, 0.4], [0, 1, 0.9, 0.8], False),  # both fall: it broke down
        ([1, 0.5], [0, 1], False),  # too few looks
    ],
)
def test_what_counts_as_hacked(judge_means, proxy_means, hacked):
    assert is_hacked(*run_of(judge_means, proxy_means), 2.0, patience=2) == hacked


def test_a_higher_tolerance_waits_for_a_larger_fall():
    looks = run_of([1, 0.9, 0.9], [0, 1, 2])
    assert is_hacked(*looks, 1.0, patience=2)
    assert not is_hacked(*looks, 10.0, patience=2)


def test_a_single_prompt_or_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match="two prompts or more"):
        change_since_best([[1.0]], [[1.0]])
    with pytest.raises(ValueError, match=r"\(1, 2\) and proxies \(2, 2\)"):
        change_since_best([[1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]])


# --- Runs -----------------------------------------------------------------------------


def test_it_fires_where_the_proxy_rises_and_the_judge_falls(tiny_model, tiny_tokenizer):
    trainer = make_trainer(tiny_model, tiny_tokenizer)
    with pytest.warns(UserWarning, match="Reward hacking by update") as warned:
        monitor = watched(trainer, fewer_letters, every=2)
    assert len(warned) == 1  # once a run
    assert [look["step"] for look in monitor.looks] == [0, 2, 4, 6, 8]
    assert monitor.alarm in (4, 6, 8)
    assert trainer.state.global_step == 8


def test_it_is_silent_where_both_rise(tiny_model, tiny_tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        monitor = watched(make_trainer(tiny_model, tiny_tokenizer), more_letters)
    assert monitor.alarm is None
    first, last = monitor.looks[0], monitor.looks[-1]
    assert np.mean(last["judge"]) > np.mean(first["judge"]) + 0.1


def test_it_stops_the_run_if_asked_to(tiny_model, tiny_tokenizer):
    trainer = make_trainer(tiny_model, tiny_tokenizer, max_steps=20)
    with pytest.warns(UserWarning, match="The run stops here"):
        monitor = watched(trainer, fewer_letters, every=1, patience=1, stop=True)
    assert trainer.state.global_step == monitor.alarm < 20
    assert monitor.looks[-1]["step"] == monitor.alarm


def test_watching_changes_nothing(tiny_model, tiny_tokenizer):
    alone = make_trainer(copy.deepcopy(tiny_model), tiny_tokenizer, max_steps=3)
    alone.train()
    trainer = make_trainer(tiny_model, tiny_tokenizer, max_steps=3)
    watched(trainer, more_letters, every=1)
    assert_same(parameters(trainer), parameters(alone), rtol=0, atol=0)


def test_it_logs_what_it_saw(tiny_model, tiny_tokenizer):
    trainer = make_trainer(tiny_model, tiny_tokenizer, max_steps=3)
    monitor = watched(trainer, more_letters, every=3)
    rows = [row for row in trainer.state.log_history if "monitor/judge" in row]
    assert [row["step"] for row in rows] == [0, 3]
    evaluations = [row for row in trainer.state.log_history if "monitor_score" in row]
    for row, look, evaluation in zip(rows, monitor.looks, evaluations, strict=True):
        assert row["monitor/judge"] == pytest.approx(np.mean(look["judge"]))
        assert row["monitor/proxy"] == pytest.approx(evaluation["monitor_score"])
        assert row["monitor/judge"] == pytest.approx(2 * row["monitor/proxy"])
    looks = [[look[name] for look in monitor.looks] for name in ("judge", "proxy")]
    change = change_since_best(*looks)
    assert rows[1]["monitor/judge_change"] == change.judge
    assert rows[1]["monitor/judge_error"] == change.judge_error
    assert evaluations[0]["monitor_kl_exact"] == 0 < evaluations[1]["monitor_kl_exact"]


def test_it_takes_the_trainers_evaluation_prompts_and_their_columns(
    tiny_model, tiny_tokenizer
):
    def asks_for(prompts, completions, answer):
        assert answer == [row["answer"] for row in ASKED]
        return [float(a in p) for a, p in zip(answer, prompts, strict=True)]

    args = make_trainer(tiny_model, tiny_tokenizer, max_steps=1).args
    trainer = PPOTrainer(
        tiny_model, letters, args, PROMPTS, ASKED, processing_class=tiny_tokenizer
    )
    monitor = watched(trainer, asks_for, prompts=None, every=1)
    assert monitor.looks[1]["judge"] == [1.0] * len(ASKED)


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_a_reward_model_judges_text(tiny_model, tiny_tokenizer, with_tokenizer, judge):
    trainer = make_trainer(tiny_model, tiny_tokenizer, data=CHAT, max_steps=1)
    given = (judge, tiny_tokenizer) if with_tokenizer else judge
    monitor = watched(trainer, given, CHAT, every=1)
    rows = trainer.eval_completions
    texts = [row["completion"] for row in rows]
    expected = score(judge, tiny_tokenizer, [row["prompt"] for row in CHAT], texts)
    np.testing.assert_allclose(monitor.looks[-1]["judge"], expected, rtol=1e-5)


def test_it_looks_at_the_policy_with_its_adapters(tiny_model, tiny_tokenizer):
    args = make_trainer(tiny_model, tiny_tokenizer, learning_rate=0.05).args
    trainer = PPOTrainer(
        tiny_model,
        letters,
        args,
        PROMPTS,
        processing_class=tiny_tokenizer,
        peft_config=lora(),
    )
    monitor = watched(trainer, more_letters, every=4)
    assert monitor.looks[0]["judge"] != monitor.looks[-1]["judge"]


def test_looks_are_kept_with_a_checkpoint(tiny_model, tiny_tokenizer, tmp_path):
    saved = dict(output_dir=str(tmp_path), save_strategy="steps", save_steps=2)
    first = make_trainer(tiny_model, tiny_tokenizer, max_steps=2, **saved)
    before = watched(first, more_letters, every=1).looks
    trainer = make_trainer(tiny_model, tiny_tokenizer, max_steps=3, **saved)
    monitor = RewardHackingCallback(trainer, more_letters, ASKED, every=1)
    trainer.add_callback(monitor)
    trainer.train(resume_from_checkpoint=True)
    assert [look["step"] for look in monitor.looks] == [0, 1, 2, 3]
    assert monitor.looks[:3] == before


WATCH = """
    monitor = RewardHackingCallback(
        trainer, lambda completions: [-c.count("b") for c in completions], data, every=1
    )
    trainer.add_callback(monitor)
    trainer.train()
    if trainer.is_world_process_zero():
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/looks.json", "w") as file:
            json.dump(monitor.looks, file)
"""


@pytest.mark.slow
def test_two_processes_see_what_one_sees(tmp_path, monkeypatch):
    """Five prompts: the second process has one of the first's again."""
    script = test_distributed.SCRIPT
    for old, new in (
        ("    trainer.train()\n", WATCH.removeprefix("\n")),
        ("import json\n", "import json\nimport os\n"),
        ("import PPOConfig,", "import RewardHackingCallback, PPOConfig,"),
        # A batch draws its own random numbers, and its rows depend on the processes.
        ("use_cpu=True,", "use_cpu=True, per_device_eval_batch_size=1,"),
    ):
        assert script.count(old) == 1
        script = script.replace(old, new)
    monkeypatch.setattr(test_distributed, "SCRIPT", script)
    test_distributed.alone(tmp_path, endless=False)
    test_distributed.together(tmp_path, "ddp_cpu.yaml", endless=False)
    one, two = (
        json.loads((tmp_path / name / "looks.json").read_text())
        for name in ("alone", "together")
    )
    assert [look["step"] for look in one] == [0, 1, 2]
    assert any(look["judge"] != one[0]["judge"] for look in one)
    for look, other in zip(one, two, strict=True):
        assert other["judge"] == look["judge"] and len(look["judge"]) == 5
        np.testing.assert_allclose(other["proxy"], look["proxy"], rtol=1e-6)


# --- What it refuses ------------------------------------------------------------------


def needs_a_source(completions, source):
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(judge=letters), "judge is 'letters', which the trainer optimises"),
        (dict(judge=needs_a_source), "has an argument 'source', and prompts has no"),
        (dict(prompts=None), "no eval_dataset"),
        (dict(prompts=ASKED[:1]), "a single prompt"),
        (dict(every=0), "every is 0"),
        (dict(patience=0), "patience is 0"),
        (dict(tolerance=-1.0), "tolerance is -1"),
        (dict(tolerance=float("nan")), "tolerance is nan"),
    ],
)
def test_what_is_wrong_is_named(tiny_model, tiny_tokenizer, wrong, message):
    trainer = make_trainer(tiny_model, tiny_tokenizer)
    given = dict(judge=more_letters, prompts=ASKED) | wrong
    with pytest.raises(AlignlabError, match=message):
        RewardHackingCallback(trainer, **given)


def test_the_reward_model_that_is_optimised_is_no_judge(tiny_model, tiny_tokenizer):
    proxy = reward_model_from(tiny_model, seed=1)
    trainer = make_trainer(tiny_model, tiny_tokenizer, proxy)
    with pytest.raises(AlignlabError, match="which the trainer optimises"):
        RewardHackingCallback(trainer, (proxy, tiny_tokenizer), ASKED)


def test_a_reward_that_is_only_recorded_may_judge(tiny_model, tiny_tokenizer):
    rewards, weights = [letters, more_letters], [1.0, 0.0]
    trainer = make_trainer(tiny_model, tiny_tokenizer, rewards, reward_weights=weights)
    assert RewardHackingCallback(trainer, more_letters, ASKED).alarm is None


@pytest.mark.parametrize(
    ("value", "message"), [(None, "returned None"), (float("nan"), "returned nan")]
)
def test_a_judge_without_an_answer(tiny_model, tiny_tokenizer, value, message):
    trainer = make_trainer(tiny_model, tiny_tokenizer, max_steps=1)
    with pytest.raises(AlignlabError, match=message):
        watched(trainer, lambda completions: [value] * len(completions))


def test_two_monitors_would_mix_their_looks(tiny_model, tiny_tokenizer):
    trainer = make_trainer(tiny_model, tiny_tokenizer, max_steps=1)
    trainer.add_callback(RewardHackingCallback(trainer, more_letters, ASKED))
    with pytest.raises(AlignlabError, match="several RewardHackingCallbacks"):
        watched(trainer, more_letters)
