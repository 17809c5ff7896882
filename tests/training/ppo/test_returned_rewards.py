"""What a reward function may return."""

import asyncio
import collections
import decimal
import math

import numpy as np
import pandas as pd
import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.training.ppo.reporting import completion_rows, mean_of, rollout_metrics
from alignlab.training.ppo.rewards import Reward, weigh
from alignlab.training.ppo.rollout import Episodes
from tests.training.ppo.helpers import (
    CHAT,
    config,
    letters,
    make_and_train,
    ones,
    train_by_sgd,
)

VALUES = [0.5, -2.0, 3.0]
BATCH = {
    "prompts": ["p", "q", "r"],
    "completions": ["a", "b", "c"],
    "prompt_ids": [[1], [2], [3]],
    "completion_ids": [[4], [5], [6]],
    "completion_ended": [True, True, False],
    "chat_template_kwargs": [{}, {}, {}],
}
TENSOR = torch.tensor(VALUES)
ARRAY = np.array(VALUES)


def returned(value):
    return Reward("it", lambda completions: value)(BATCH)


async def later(value):
    await asyncio.sleep(0.001)
    return value


@pytest.mark.parametrize(
    "value",
    [
        VALUES,
        tuple(VALUES),
        iter(VALUES),
        (x for x in VALUES),
        map(float, VALUES),
        collections.deque(VALUES),
        {"a": 0.5, "b": -2.0, "c": 3.0}.values(),
        [decimal.Decimal(x) for x in VALUES],
        list(ARRAY),
        list(TENSOR),
        [TENSOR[:1], TENSOR[1:2], TENSOR[2:]],
        [[x] for x in VALUES],
        TENSOR[:, None],
        ARRAY[:, None],
        ARRAY.astype(object),
        TENSOR.clone().requires_grad_(),
        list(TENSOR.clone().requires_grad_()),
        pd.Series(VALUES, index=[2, 0, 1]),
        pd.DataFrame({"reward": VALUES}),
        *(TENSOR.to(t) for t in (torch.float16, torch.bfloat16, torch.float64)),
        *(list(TENSOR.to(t)) for t in (torch.float16, torch.bfloat16)),
        *(ARRAY.astype(t) for t in (np.float16, np.float32, np.longdouble)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_come_in_any_container(value):
    assert returned(value) == VALUES


@pytest.mark.parametrize(
    "value",
    [
        [0, 1, 5],
        np.array([0, 1, 5], dtype=np.uint8),
        *(torch.tensor([0, 1, 5], dtype=t) for t in (torch.int64, torch.uint8)),
    ],
)
def test_numbers_may_be_integers(value):
    numbers = returned(value)
    assert numbers == [0, 1, 5] and all(type(x) is float for x in numbers)


def test_truth_counts_as_one():
    for value in ([True, False, True], torch.tensor([True, False, True])):
        assert returned(value) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "value",
    [
        [0.5, None, 3.0],
        (x for x in (0.5, None, 3.0)),
        np.array([0.5, None, 3.0]),
        [[0.5], [None], [3.0]],
        pd.Series([0.5, None, 3.0], dtype=object),
        np.ma.masked_invalid([0.5, np.nan, 3.0]),
    ],
)
def test_none_says_that_the_function_does_not_apply(value):
    numbers = returned(value)
    assert numbers[::2] == [0.5, 3.0] and math.isnan(numbers[1])


@pytest.mark.parametrize("value", [torch.tensor(0.5), np.float32(0.5), 0.5, [0.5]])
def test_one_number_is_enough_for_one_completion(value):
    batch = {name: column[:1] for name, column in BATCH.items()}
    assert Reward("it", lambda completions: value)(batch) == [0.5]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({0: 1.0, 1: 2.0, 2: 3.0}, "returned dict for 3"),
        ({0: 1.0, 1: 2.0, 2: 3.0}.keys(), "returned dict_keys for 3"),
        (collections.Counter([1, 2, 3]), "returned Counter for 3"),
        (collections.UserDict({1: 1, 2: 2, 3: 3}), "returned UserDict for 3"),
        ({1.0, 2.0, 3.0}, "returned set for 3"),
        (frozenset([1.0, 2.0, 3.0]), "returned frozenset for 3"),
        ("123", "returned str for 3"),
        (b"123", "returned bytes for 3"),
        (None, "returned NoneType for 3"),
        (1.0, "returned float for 3"),
        (np.float64(1.0), r"returned float64 of shape \(\) for 3"),
        (torch.tensor(1.0), r"returned Tensor of shape \(\) for 3"),
        (TENSOR[None], r"returned Tensor of shape \(1, 3\) for 3"),
        (ARRAY[None], r"returned ndarray of shape \(1, 3\) for 3"),
        (np.ones((3, 2)), r"returned \[1.0, 1.0\] for completion 0"),
        (pd.DataFrame({"a": VALUES, "b": VALUES}), r"\[0.5, 0.5\] for completion 0"),
        (TENSOR[:2], "returned 2 numbers for 3"),
        ([], "returned 0 numbers for 3"),
        (iter(int, 1), "returned 4 numbers for 3"),
        ([1.0, math.nan, 1.0], "returned nan for completion 1, 'b', of prompt 'q'"),
        (torch.tensor([1.0, 1.0, math.inf]), "returned inf for completion 2"),
        (pd.Series([1.0, None, 3.0]), "returned nan for completion 1"),
        ([1.0, 1e39, 1.0], "returned 1e.39 for completion 1"),  # inf in float32
        ([1.0, 10**400, 1.0], "for completion 1"),
        (["1.0", "2.0", "3.0"], "returned '1.0' for completion 0"),
        ([1.0, 1j, 1.0], "returned 1j for completion 1"),
        ([{"score": 1.0}] * 3, "returned {'score': 1.0} for completion 0"),
        ([1.0, torch.ones(2), 1.0], "for completion 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_number_for_each_completion_is_refused(value, message):
    with pytest.raises(AlignlabError, match=f"'it' .*{message}"):
        returned(value)


def test_async_functions_are_waited_for():
    async def reward(completions, prompts):
        return await later([float(len(p + c)) for p, c in zip(prompts, completions)])

    assert Reward("it", reward)(BATCH) == [2.0, 2.0, 2.0]

    async def in_a_notebook():  # where a loop is running already
        return Reward("it", reward)(BATCH)

    assert asyncio.run(in_a_notebook()) == [2.0, 2.0, 2.0]


def test_async_functions_keep_their_event_loop():
    loops = []

    async def reward(completions):
        loops.append(asyncio.get_running_loop())
        return VALUES

    for _ in range(2):
        Reward("it", reward)(BATCH)
    assert loops[0] is loops[1] and not loops[0].is_closed()


# --- Several functions, not all of which apply --------------------------------------

NAN = math.nan
TABLE = torch.tensor([[1.0, 10.0], [NAN, 20.0], [3.0, NAN]])


def test_a_score_is_the_sum_of_what_applies():
    assert weigh(TABLE, None).tolist() == [11.0, 20.0, 3.0]
    assert weigh(TABLE, [2.0, 0.5]).tolist() == [7.0, 10.0, 6.0]
    assert weigh(TABLE, [2.0, 0.5]).dtype == torch.float32
    assert weigh(TABLE[:1], [0.0, 0.0]).tolist() == [0.0]


def test_where_nothing_applies_the_score_is_that_of_the_others():
    table = torch.tensor([[1.0], [NAN], [3.0], [8.0], [NAN], [NAN]])
    assert weigh(table, None).tolist() == [1.0, 4.0, 3.0, 8.0, 4.0, 4.0]
    of_two = weigh(table, None, completions_per_prompt=2).tolist()
    assert of_two == [1.0, 1.0, 3.0, 8.0, 4.0, 4.0]
    assert weigh(TABLE, [1.0, 0.0]).tolist() == [1.0, 2.0, 3.0]


def test_a_score_needs_a_function_that_counts():
    with pytest.raises(AlignlabError, match="applies to any of the 2 completions"):
        weigh(torch.full((2, 2), NAN), None)
    with pytest.raises(AlignlabError, match="applies to any of the 3 completions"):
        weigh(torch.stack([torch.full((3,), NAN), torch.ones(3)], 1), [1.0, 0.0])


def test_reports_leave_out_what_does_not_apply():
    episodes = Episodes(
        input_ids=torch.zeros(3, 2, dtype=torch.long),
        prompt_length=torch.ones(3, dtype=torch.long),
        mask=torch.ones(3, 1, dtype=torch.bool),
        ended=torch.ones(3, dtype=torch.bool),
        **{
            name: torch.zeros(3, 1)
            for name in ("old_log_probs", "ref_log_probs", "entropy", "exact_kl")
        },
    )
    table = torch.cat([TABLE, torch.full((3, 1), NAN)], 1)
    names = ["a", "b", "c"]
    scores = weigh(table, None)
    metrics = rollout_metrics(episodes, scores, table, names)
    assert metrics["reward/a"] == 2.0 and metrics["reward/b"] == 15.0
    assert math.isnan(metrics["reward/c"])
    rows = completion_rows(["p"] * 3, ["c"] * 3, episodes, scores, table, names)
    assert [row["reward/a"] for row in rows] == [1.0, None, 3.0]
    assert [row["reward/c"] for row in rows] == [None] * 3
    assert mean_of([{"x": 1.0}, {"x": NAN}, {}, {"x": 2.0}], "x") == 1.5
    assert math.isnan(mean_of([{"x": NAN}], "x"))


def test_ppo_learns_from_functions_that_apply_to_some(tiny_model, tiny_tokenizer):
    def of_france(completions, prompts):
        rewards = letters(completions)
        return [r if "France" in p else None for r, p in zip(rewards, prompts)]

    def of_the_rest(completions, prompts):
        return [None if "France" in p else -5.0 for p in prompts]

    trainer = train_by_sgd(tiny_model, tiny_tokenizer, [of_france, of_the_rest])
    row, rows = trainer.state.log_history[0], trainer.completions
    france = [r for r in rows if "France" in r["prompt"]]
    expected = letters([r["completion"] for r in france])
    assert 0 < len(france) < len(rows)
    assert row["reward/of_france"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert row["reward/of_the_rest"] == -5.0
    assert [r["score"] for r in france] == pytest.approx(expected, rel=1e-6)
    assert {r["score"] for r in rows if r not in france} == {-5.0}
    assert {r["reward/of_france"] for r in rows if r not in france} == {None}
    total = sum(expected) - 5.0 * (len(rows) - len(france))
    assert row["score"] == pytest.approx(total / len(rows), rel=1e-5)


def test_ppo_refuses_completions_without_a_reward(tiny_model, tiny_tokenizer):
    def none(completions):
        return [None] * len(completions)

    with pytest.raises(AlignlabError, match="No reward function applies"):
        make_and_train(tiny_model, tiny_tokenizer, none)
    args = config(log_completions=2)  # None is printed, too
    make_and_train(tiny_model, tiny_tokenizer, [none, ones], CHAT, args=args)
