"""Prompts, episodes and their layouts, groups of like width."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models.positions import completion_log_probs
from alignlab.training.ppo.policy_value import completion_logits
from alignlab.training.ppo.rollout import Episodes, cheapest_groups
from tests.training.ppo.helpers import CHAT, QUESTION, TEXT, config, make_trainer


def test_chats_go_through_the_template_once(tiny_model, tiny_tokenizer):
    trainer = make_trainer(tiny_model, tiny_tokenizer, data=CHAT)
    expected = tiny_tokenizer.apply_chat_template(
        CHAT[0]["prompt"], add_generation_prompt=True, tokenize=False
    )
    expected = tiny_tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert trainer.prompts.ids[0] == expected
    assert trainer.prompts.ids[0].count(2) == 1  # <|user|>


def test_text_is_read_as_it_is(tiny_model, tiny_tokenizer):
    trainer = make_trainer(tiny_model, tiny_tokenizer)
    assert trainer.prompts.ids[0] == tiny_tokenizer(QUESTION)["input_ids"]


def test_a_begin_token_is_never_put_twice(tiny_model, tiny_tokenizer):
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.bos_token = "<|system|>"
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", 4)]
    )
    tokenizer.chat_template = "<|system|>" + tiny_tokenizer.chat_template
    data = [*CHAT, {"prompt": "Peru"}, {"prompt": "<|system|>Peru"}]
    trainer = make_trainer(tiny_model, tokenizer, data=data)
    for ids in trainer.prompts.ids:
        assert ids[0] == 4 and ids.count(4) == 1


def test_every_epoch_has_every_prompt_once(tiny_model, tiny_tokenizer):
    data = [{"prompt": str(number)} for number in range(7)]
    prompts = make_trainer(tiny_model, tiny_tokenizer, data=data).prompts
    series = [row for update in range(7) for row in prompts.draw(update, 3, seed=0)]
    epochs = [tuple(series[start : start + 7]) for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) == 3
    assert series != [r for u in range(7) for r in prompts.draw(u, 3, seed=1)]


def test_a_datasets_dataset_is_taken(tiny_model, tiny_tokenizer):
    datasets = pytest.importorskip("datasets")
    trainer = make_trainer(
        tiny_model, tiny_tokenizer, data=datasets.Dataset.from_list(CHAT)
    )
    assert trainer.prompts.columns == {"answer": ["Paris", "sol"]}
    assert trainer.prompts.given == [row["prompt"] for row in CHAT]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "train_dataset is NoneType"),
        ([], "train_dataset has no rows"),
        (iter(TEXT), "has no length"),
        ([{"question": "x"}], r"train_dataset\[0\] has no `prompt`"),
        (["x"], r"train_dataset\[0\] has no `prompt`"),
        ([*TEXT, {"prompt": ""}], r"train_dataset\[2\] is not a prompt: ''"),
        ([*TEXT, {"prompt": []}], r"train_dataset\[2\] is not a prompt"),
        ([*TEXT, {"prompt": None}], r"train_dataset\[2\] is not a prompt: None"),
        ([*TEXT, {"prompt": 7}], r"train_dataset\[2\] is not a prompt: 7"),
        ([*TEXT, {"prompt": "a b " * 99}], r"train_dataset\[2\] has \d+ tokens; .*123"),
    ],
)
def test_bad_prompts_are_named(tiny_model, tiny_tokenizer, data, message):
    with pytest.raises(AlignlabError, match=message):
        make_trainer(tiny_model, tiny_tokenizer, data=data)


def test_eval_prompts_are_checked_as_well(tiny_model, tiny_tokenizer):
    with pytest.raises(AlignlabError, match=r"eval_dataset\[0\] is not a prompt"):
        make_trainer(tiny_model, tiny_tokenizer, eval_dataset=[{"prompt": ""}])


def test_a_chat_without_a_template_is_refused(tiny_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(
        AlignlabError, match=r"train_dataset\[0\]: .* has no chat template"
    ):
        make_trainer(tiny_model, tokenizer, data=CHAT)


def test_left_and_right_padding_agree(tiny_model):
    torch.manual_seed(1)
    prompts = [torch.randint(5, 350, (n,)).tolist() for n in (3, 9, 1, 6)]
    sampled = torch.randint(5, 350, (4, 7))
    sampled[1, 2] = sampled[3, 0] = 1  # two of them end early
    episodes = Episodes.pack(prompts, sampled, stop_token_id=1, pad_token_id=0)
    assert episodes.lengths.tolist() == [7, 3, 7, 1]
    assert episodes.ended.tolist() == [False, True, False, True]
    logits, _ = completion_logits(
        tiny_model, episodes.input_ids, episodes.prediction_mask
    )
    actual = logits.log_softmax(-1)[torch.arange(18), episodes.tokens]
    # The same rows, padded on the left, through a function that has nothing of ours.
    rows = [
        p + c[:n]
        for p, c, n in zip(prompts, sampled.tolist(), episodes.lengths.tolist())
    ]
    width = max(map(len, rows))
    ids = torch.tensor([[4] * (width - len(row)) + row for row in rows])
    seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    completion_mask = torch.zeros_like(seen)
    for i, length in enumerate(episodes.lengths.tolist()):
        completion_mask[i, width - length :] = 1
    expected = completion_log_probs(tiny_model, ids, seen, completion_mask)
    expected = expected[completion_mask[:, 1:].bool()]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    spread = episodes.unflatten(actual)
    assert spread.shape == (4, 7)
    torch.testing.assert_close(spread.sum(1)[1], actual[7:10].sum())


def test_rows_are_cut_to_what_they_need(tiny_model):
    sampled = torch.tensor([[7, 8, 1, 0], [7, 7, 7, 7], [1, 0, 0, 0]])
    episodes = Episodes.pack(
        [[5, 6], [5], [5, 6, 7]], sampled, stop_token_id=1, pad_token_id=0
    )
    episodes.values = episodes.unflatten(torch.arange(1.0, 9.0))
    assert episodes.values.tolist() == [[1, 2, 3, 0], [4, 5, 6, 7], [8, 0, 0, 0]]
    cut = episodes.take(torch.tensor([2, 0]).numpy())
    assert cut.input_ids.tolist() == [[5, 6, 7, 1, 0], [5, 6, 7, 8, 1]]
    assert cut.values.tolist() == [[8, 0, 0], [1, 2, 3]]
    assert cut.tokens.tolist() == [1, 7, 8, 1]
    joined = Episodes.join([cut, episodes.take(torch.tensor([1]).numpy())])
    assert joined.values.tolist() == [[8, 0, 0, 0], [1, 2, 3, 0], [4, 5, 6, 7]]
    assert joined.completion_ids() == [[1], [7, 8, 1], [7, 7, 7, 7]]


def fits(groups, limit):
    return all(len(g) == 1 or len(g) * g.max() <= limit for g in groups)


def test_groups_of_like_width_are_the_cheapest_there_are():
    random = np.random.default_rng(0)
    for n, price, limit in itertools.product((1, 2, 7), (0, 5, 1000), (15, math.inf)):
        widths = random.integers(1, 20, n)
        groups = cheapest_groups(widths, price, limit)
        assert sorted(np.concatenate(groups)) == list(range(n))
        assert fits([widths[g] for g in groups], limit)
        cost = sum(len(g) * widths[g].max() + price for g in groups)
        cuts = itertools.chain.from_iterable(
            itertools.combinations(range(1, n), size) for size in range(n)
        )
        ways = [np.split(np.sort(widths), places) for places in cuts]
        assert cost == min(
            sum(len(part) * part.max() + price for part in parts)
            for parts in ways
            if fits(parts, limit)
        )
        if price == 1000 and limit == math.inf:
            assert len(groups) == 1


def test_groups_of_a_rollout_draw_from_random_streams_of_their_own(
    tiny_model, tiny_tokenizer
):
    """So the episodes depend on the groups' size, and not on how many there are."""
    texts = {}
    for size in (2, 4, None):
        for batch_size in (4, 8):
            args = config(
                per_device_train_batch_size=batch_size,
                local_rollout_forward_batch_size=size,
            )
            trainer = make_trainer(copy.deepcopy(tiny_model), tiny_tokenizer, args=args)
            trainer.train()
            actual = [row["completion"] for row in trainer.completions]
            texts[size, batch_size] = actual
    assert texts[2, 4] == texts[2, 8][:4] and texts[4, 4] == texts[4, 8][:4]
    assert texts[2, 4] != texts[4, 4]
    assert texts[4, 4] == texts[None, 4]
