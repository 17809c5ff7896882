"""Prompts, episodes and their layouts, groups of like width."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
)

from alignlab.errors import AlignlabError
from alignlab.models.positions import completion_log_probs
from alignlab.training.ppo import rollout
from alignlab.training.ppo.policy_value import PolicyAndValue, completion_logits
from alignlab.training.ppo.rollout import (
    Episodes,
    add_predictions,
    cheapest_groups,
    sample_episodes,
)
from tests.training.ppo.helpers import (
    CHAT,
    QUESTION,
    TEXT,
    config,
    letters,
    make_trainer,
    train_by_sgd,
)


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
        (None, "train_dataset is None, which has no rows"),
        ([], "train_dataset has no rows"),
        ({"train": TEXT}, r"pass one of them: train_dataset\['train'\]"),
        ([{"question": "x"}], r"train_dataset\[0\] has no `prompt`"),
        (["x"], r"train_dataset\[0\] is no row with columns: 'x'"),
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
    episodes = Episodes.pack(prompts, sampled, stop_token_ids=[1], pad_token_id=0)
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
        [[5, 6], [5], [5, 6, 7]], sampled, stop_token_ids=[1], pad_token_id=0
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


# --- What sampling has seen, instead of another pass ----------------------------------

PREDICTED = ("old_log_probs", "ref_log_probs", "values", "entropy", "exact_kl")


def gpt2(tiny_model):
    return GPT2LMHeadModel(GPT2Config(vocab_size=356, n_embd=16, n_layer=2, n_head=2))


def granite(tiny_model):
    """It scales its logits after the output layer."""
    return GraniteForCausalLM(
        GraniteConfig(
            vocab_size=356,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            logits_scaling=4.0,
        )
    )


def random_model(build, tiny_model, seed, temperature):
    """One that ends at every fifth token."""
    torch.manual_seed(seed)
    model = build(copy.deepcopy(tiny_model)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    scale = temperature * getattr(model.config, "logits_scaling", 1.0)

    def favour_eos(module, inputs, logits):
        eos = (logits / scale).logsumexp(-1) + math.log(0.2 / 0.8)
        return logits.index_copy(-1, torch.tensor([1]), scale * eos[..., None])

    model.get_output_embeddings().register_forward_hook(favour_eos)
    return model


def sampled_twice(module, reference, temperature=1.0, lengths=(3, 9, 1, 6)):
    """The same episodes, with what was kept in sampling and with what a pass over them
    finds."""
    torch.manual_seed(1)
    prompts = [torch.randint(5, 350, (n,)).tolist() for n in lengths * 5]
    results = []
    for keep in (True, False):
        episodes = sample_episodes(
            module,
            prompts,
            max_new_tokens=12,
            stop_token_ids=[1],
            pad_token_id=0,
            generator=torch.Generator().manual_seed(0),
            temperature=temperature,
            keep_predictions=keep,
        )
        assert (episodes.logits is not None) == keep
        part = episodes.take(np.arange(18, 2, -1))

        def ref_logits(batch):
            logits, _ = completion_logits(
                reference, batch.input_ids, batch.prediction_mask
            )
            return logits.float() / temperature

        add_predictions(part, module, ref_logits, temperature)
        assert part.logits is None
        results.append(part)
    return results


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("build", [lambda tiny: tiny, gpt2, granite])
@pytest.mark.parametrize("lengths", [(3, 9, 1, 6), (4, 4, 4, 4)])
def test_what_sampling_keeps_is_what_a_pass_finds(
    tiny_model, build, temperature, lengths
):
    policy, reference = (
        random_model(build, tiny_model, seed, temperature) for seed in (0, 1)
    )
    module = PolicyAndValue(policy)
    torch.nn.init.normal_(module.value_head.weight, std=0.1)
    kept, computed = sampled_twice(module, reference, temperature, lengths)
    assert torch.equal(kept.input_ids, computed.input_ids)
    assert len(kept.lengths.unique()) > 3  # so rows left the batch
    for name in PREDICTED:
        actual, expected = getattr(kept, name), getattr(computed, name)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5, msg=name)
        assert expected.abs().max() > 1e-3 and (expected[~computed.mask] == 0).all()


def test_a_value_model_reads_what_the_policy_need_not_read_again(tiny_model, judge):
    module, reference = PolicyAndValue(tiny_model, judge), copy.deepcopy(tiny_model)
    calls = []
    hook = tiny_model.register_forward_pre_hook(lambda *_: calls.append(1))
    kept, computed = sampled_twice(module, reference)
    hook.remove()
    assert torch.equal(kept.values, computed.values) and kept.values.abs().max() > 0
    torch.testing.assert_close(kept.old_log_probs, computed.old_log_probs)
    assert len(calls) == 2 * 12 + 1


def passes(model, tokenizer, **settings):
    """The trainer after three updates, and the numbers of the policy's passes over
    whole episodes without gradient, in each."""
    counts = [0]

    def count(module, inputs, options):  # the reference, a copy, has the hook as well
        whole = options.get("past_key_values") is None
        if module is model and whole and not torch.is_grad_enabled():
            counts[-1] += 1

    def reward(completions):
        counts.append(0)
        return letters(completions)

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    trainer = train_by_sgd(model, tokenizer, reward, max_steps=3, **settings)
    hook.remove()
    return trainer, counts[:3]


def test_episodes_are_read_again_only_in_the_first_update(tiny_model, tiny_tokenizer):
    trainer, counts = passes(tiny_model, tiny_tokenizer, num_ppo_epochs=1)
    assert counts[0] > 0 and counts[1:] == [0, 0]
    for row in trainer.state.log_history[:3]:
        assert row["ratio"] == pytest.approx(1, abs=1e-5)
        assert abs(row["approx_kl"]) < 1e-6 and row["clip_fraction"] == 0
    assert trainer.state.log_history[2]["kl_exact"] > 1e-3  # and it did learn


def test_in_bfloat16_episodes_are_read_again(tiny_model, tiny_tokenizer):
    _, counts = passes(tiny_model, tiny_tokenizer, bf16=True)
    assert min(counts) > 0
    _, counts = passes(tiny_model.bfloat16(), tiny_tokenizer)
    assert min(counts) > 0


def test_a_gpu_has_a_limit_on_the_logits_of_a_pass():
    widths = np.full(64, 100)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert len(rollout.group_by_width(widths, gpu)) == 1
    groups = rollout.group_by_width(widths, gpu, vocabulary=150_000)
    limit = rollout.GROUP_LOGITS // 150_000
    assert len(groups) > 1 and max(map(len, groups)) * 100 <= limit
    assert sorted(np.concatenate(groups)) == list(range(64))
    alone = rollout.group_by_width(widths, gpu, vocabulary=2**30)
    assert [len(group) for group in alone] == [1] * 64
    as_before = rollout.group_by_width(widths, cpu)
    same = rollout.group_by_width(widths, cpu, vocabulary=150_000)
    assert [len(group) for group in same] == [len(group) for group in as_before]
