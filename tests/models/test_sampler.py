"""The sampler against `model.generate`, and against the model's own distribution."""

import copy

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
)
from transformers.cache_utils import DynamicSlidingWindowLayer

from alignlab.errors import AlignlabError
from alignlab.models import sampler
from alignlab.models.cache import empty_cache, keeps_cache
from alignlab.models.sampler import complete, require_sampled_is_scored, sample
from tests.models.conftest import KINDS, OWN_CACHE

PROMPTS = [
    "What is the capital of France?",
    "Is gold a metal?",
    "Peru",
    "The capital of Kenya, and the money of Japan, and the number of iron: say them.",
    "Say it in one word: what is the capital of Norway?",
]


def prompts(lengths, vocabulary, seed=0):
    """Random prompts of these lengths, padded on the left with random tokens."""
    torch.manual_seed(seed)
    ids = torch.randint(5, vocabulary, (len(lengths), max(lengths)))
    real = torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]
    return ids, real.long()


def generate(model, ids, mask, new, end=None):
    out = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=0,
    )
    return out[:, ids.shape[1] :]


def alone(model, ids, mask, new, ends):
    """Every prompt by ``model.generate`` without a batch or padding."""
    outputs = torch.zeros(len(ids), new, dtype=torch.long)
    for row, (prompt, real) in enumerate(zip(ids, mask.bool())):
        prompt = prompt[real][None]
        if model._is_stateful:  # RecurrentGemma remembers the last prompt of one token
            model(prompt, use_cache=False)
        found = generate(model, prompt, torch.ones_like(prompt), new, ends)[0]
        outputs[row, : len(found)] = found
    return outputs


def talkative(model, end=1, by=2.0):
    """Let EOS win now and then, at different steps in different rows."""
    with torch.no_grad():
        model.get_output_embeddings().weight[end] *= by
    return model


@pytest.mark.parametrize("lengths", [[6, 6, 6], [3], [9, 1, 4, 9, 2, 7, 5, 3]])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_tokens_are_those_of_generate(tiny_model, lengths, seed):
    ids, mask = prompts(lengths, tiny_model.config.vocab_size, seed)
    tiny_model.generation_config.eos_token_id = None
    found = sample(tiny_model, ids, mask, 20, temperature=0)
    assert torch.equal(found, generate(tiny_model, ids, mask, 20))
    assert len({tuple(row) for row in found.tolist()}) == len(lengths)


def test_absolute_positions_are_counted_from_each_rows_first_token():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=60, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5
    )
    model = GPT2LMHeadModel(config).eval()
    model.generation_config.eos_token_id = None
    ids, mask = prompts([9, 1, 4, 7], 60)
    found = sample(model, ids, mask, 12, temperature=0)
    assert torch.equal(found, generate(model, ids, mask, 12))


def test_sliding_window_layers_keep_their_own_cache(model_of):
    model = model_of("window")
    model.generation_config.eos_token_id = None
    kinds = [type(layer) for layer in empty_cache(model).layers]
    assert kinds == [DynamicSlidingWindowLayer] * 2
    ids, mask = prompts([9, 3, 4, 7], 60)
    found = sample(model, ids, mask, 40, temperature=0)
    assert torch.equal(found, generate(model, ids, mask, 40))


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_continues_each_prompt_as_generate_does_alone(
    model_of, kind
):
    """Until any of several tokens, at which rows end at different steps."""
    model = model_of(kind).float()
    plain = model.get_base_model() if kind == "lora" else model
    plain.generation_config = GenerationConfig(pad_token_id=0)
    assert keeps_cache(model) == (kind not in OWN_CACHE)
    ids, mask = prompts([9, 1, 4, 6], 60)
    free = sample(model, ids, mask, 10, temperature=0, pad_token_id=0)
    ends = [free[0, 2].item(), free[2, 5].item()]
    found = sample(model, ids, mask, 10, 0, ends, pad_token_id=0)
    for new, stops in ((free, None), (found, ends)):
        expected = alone(plain, ids, mask, 10, stops)[:, : new.shape[1]]
        assert torch.equal(new, expected)
    assert (found[0, 3:] == 0).all() and len({tuple(x) for x in free.tolist()}) > 1


def test_what_generate_would_do_to_logits_is_left_out_and_left_as_it_is(model_of):
    model = model_of("recurrent")
    ids, mask = prompts([5, 5], 60)
    plain = sample(model, ids, mask, 12, temperature=0, pad_token_id=0)
    settings = GenerationConfig(
        repetition_penalty=5.0, top_k=1, no_repeat_ngram_size=1, pad_token_id=0
    )
    model.generation_config = settings
    assert torch.equal(sample(model, ids, mask, 12, 0, None, 0), plain)
    assert model.generation_config is settings
    assert not torch.equal(generate(model, ids, mask, 12), plain)


@pytest.mark.parametrize("kind", ["llama", "recurrent"])
def test_ids_outside_the_vocabulary_are_never_sampled(model_of, kind):
    model = model_of(kind)
    ids, mask = prompts([3] * 8, 60)
    every = sample(model, ids, mask, 12, generator=torch.Generator().manual_seed(0))
    some = sample(
        model, ids, mask, 12, generator=torch.Generator().manual_seed(0), vocabulary=20
    )
    assert every.max() >= 40 and some.max() < 20 and some.shape == (8, 12)


def test_samples_of_a_model_that_generates_itself_follow_its_distribution(model_of):
    model = model_of("lfm2").float()
    ids, mask = prompts([5], 60)
    n = 4_000
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    many = ids.expand(n, -1), mask.expand(n, -1)
    found = sample(model, *many, 1, 2.0, generator=torch.Generator().manual_seed(0))
    expected = n * (logits / 2).softmax(-1)
    counts = torch.bincount(found[:, 0], minlength=60)
    often = expected >= 10
    squares = ((counts - expected) ** 2 / expected)[often].sum()
    assert squares < 2 * often.sum() and often.sum() > 5


@pytest.mark.parametrize("ends", [1, [1], (1, 999), torch.tensor(1), np.int64(1)])
def test_end_tokens_come_in_any_form(tiny_model, ends):
    model = talkative(tiny_model)
    ids, mask = prompts([4] * 6, model.config.vocab_size)
    found = sample(model, ids, mask, 20, 0, ends, 0)
    assert torch.equal(found, generate(model, ids, mask, 20, end=1))
    assert (found == 1).any()


def test_what_keeps_no_cache_cannot_be_observed(model_of, tiny_model):
    ids, mask = prompts([5, 3], 60)
    with pytest.raises(ValueError, match="MambaForCausalLM is sampled from by its own"):
        sample(model_of("recurrent"), ids, mask, 3, observe=print)
    tiny_model.gradient_checkpointing_enable()
    tiny_model.train()
    with pytest.raises(ValueError, match="call model.eval"):
        sample(tiny_model, ids, mask, 3)


# --- what is sampled is what is scored ------------------------------------------------


class Forgetful(LlamaForCausalLM):
    """Forgets the values of all tokens but the last."""

    def forward(self, input_ids, past_key_values=None, **inputs):
        output = super().forward(input_ids, past_key_values=past_key_values, **inputs)
        for layer in getattr(past_key_values, "layers", []):
            layer.values.zero_()
        return output


FEW = [[7, 8, 9], [5], [9, 3, 4, 6, 10, 11], [8, 8]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_scores_what_it_samples(model_of, kind):
    model = model_of(kind).float()
    model.train()
    state = torch.get_rng_state()
    require_sampled_is_scored(model, FEW, 0)
    require_sampled_is_scored(model, FEW[:1], 0)
    assert model.training and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.02, 0.3])  # the usual one, and a livelier one
def test_a_model_that_samples_otherwise_than_it_scores_is_refused(
    tiny_model, kind, spread
):
    torch.manual_seed(0)
    tiny_model.config.initializer_range = spread
    right = LlamaForCausalLM(tiny_model.config).to(kind)
    require_sampled_is_scored(right, FEW, 0)
    wrong = Forgetful(tiny_model.config).to(kind)
    wrong.load_state_dict(right.state_dict())
    with pytest.raises(AlignlabError, match="other log-probabilities .* attn_impl"):
        require_sampled_is_scored(wrong, FEW, 0)


def test_a_model_that_cannot_be_sampled_from_is_refused(tiny_model, monkeypatch):
    def forward(*arguments, **inputs):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(tiny_model, "forward", forward)
    with pytest.raises(AlignlabError, match="cannot be sampled from: no kernel"):
        require_sampled_is_scored(tiny_model, FEW, 0)


# --- rows that end --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("padded", [False, True])
def test_ended_rows_leave_the_others_as_in_generate(tiny_model, seed, padded):
    model = talkative(tiny_model)
    lengths = [1 + i % 8 for i in range(40)] if padded else [8] * 40
    ids, mask = prompts(lengths, model.config.vocab_size, seed)
    found = sample(model, ids, mask, 30, temperature=0, eos_token_id=1, pad_token_id=0)
    expected = generate(model, ids, mask, 30, end=1)
    assert torch.equal(found, expected)
    new = (found != 0).sum(1)
    assert new.min() < 5 and len(new.unique()) > 5  # so rows did leave, at many steps


def test_a_batch_stops_when_all_rows_have_ended(tiny_model):
    model = talkative(tiny_model, by=50.0)
    ids, mask = prompts([4] * 30, model.config.vocab_size)
    found = sample(model, ids, mask, 60, temperature=0, eos_token_id=1)
    assert found.shape[1] < 60
    assert (found == 1).any(dim=1).all()
    assert found[:, -1].tolist() == [1] * 30  # EOS fills up where no padding is given


def test_fewer_rows_are_computed_once_some_have_ended(tiny_model, monkeypatch):
    model = talkative(tiny_model)
    ids, mask = prompts([8] * 40, model.config.vocab_size)
    sizes, forward = [], model.forward
    monkeypatch.setattr(
        model, "forward", lambda x, **kw: sizes.append(len(x)) or forward(x, **kw)
    )
    found = sample(model, ids, mask, 30, temperature=0, eos_token_id=1, pad_token_id=0)
    running = [40] + (found != 0).sum(0).tolist()[1:]
    ended = torch.tensor(running) - torch.tensor(sizes)
    assert sizes[-1] < 40
    assert all(size >= alive for size, alive in zip(sizes, running, strict=False))
    assert (-ended <= torch.tensor(sizes) * (1 - sampler.FULL_ENOUGH)).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_model_at_each_temperature(tiny_model, temperature):
    """Frequencies of a first token against its softmax, by a chi-squared statistic."""
    ids, mask = prompts([5], tiny_model.config.vocab_size)
    with torch.no_grad():
        tiny_model.model.norm.weight.mul_(0.2)  # so that many tokens are likely
        logits = tiny_model(ids).logits[0, -1]
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    many = ids.expand(n, -1), mask.expand(n, -1)
    found = sample(tiny_model, *many, 1, temperature, generator=generator)
    expected = n * (logits / temperature).softmax(-1)
    counts = torch.bincount(found[:, 0], minlength=len(expected))
    often = expected >= 10
    statistic = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = int(often.sum())
    assert freedom > 10
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


def test_impossible_tokens_are_never_chosen():
    never = -torch.inf
    logits = torch.tensor([never, 0.0, never, 3.0, never]).log_softmax(dim=0)
    generator = torch.Generator().manual_seed(0)
    chosen = sampler._choose(logits.expand(20_000, 5), 1.0, generator)
    counts = torch.bincount(chosen, minlength=5)
    share = logits[1].exp().item()
    assert counts[[0, 2, 4]].sum() == 0
    assert counts[1].item() / 20_000 == pytest.approx(share, abs=0.1 * share)


def test_the_generator_fixes_the_samples(tiny_model):
    ids, mask = prompts([3, 5, 4], tiny_model.config.vocab_size)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return sample(tiny_model, ids, mask, 12, 1.0, generator=generator)

    state = torch.get_rng_state()
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(state, torch.get_rng_state())


def test_an_observer_sees_the_logits_of_every_row_until_it_ends(tiny_model):
    model = talkative(tiny_model)
    ids, mask = prompts([1 + i % 8 for i in range(40)], model.config.vocab_size)
    steps, sizes = [], []

    def observe(step, rows, outputs):
        assert step == len(steps)
        best = torch.full((40,), -1)
        best[rows] = outputs.logits[:, -1].argmax(-1)
        steps.append(best)
        sizes.append(len(rows))

    found = sample(
        model, ids, mask, 30, 0, eos_token_id=1, pad_token_id=0, observe=observe
    )
    seen = torch.stack(steps, dim=1)
    assert torch.equal(seen[found != 0], found[found != 0])
    assert sizes[0] == 40 > sizes[-1]


def test_samples_can_be_used_in_training(tiny_model):
    ids, mask = prompts([3, 5], tiny_model.config.vocab_size)
    new = sample(tiny_model, ids, mask, 4)
    tiny_model(new).logits.sum().backward()


def test_wrong_arguments_are_refused(tiny_model):
    ids, mask = prompts([3, 5], tiny_model.config.vocab_size)
    for arguments, message in (
        ((ids, mask[:, 1:], 4), r"attention_mask \(2, 4\)"),
        ((ids[:0], mask[:0], 4), "not empty"),
        ((ids, mask.flip(1), 4), "pad on the left"),
        ((ids, mask, 0), "max_new_tokens is 0"),
        ((ids, mask, 4, -1.0), "temperature -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(tiny_model, *arguments)


# --- text in, text out ----------------------------------------------------------------


def test_replies_are_those_of_each_prompt_alone_in_the_order_given(
    tiny_model, tiny_tokenizer
):
    model = talkative(tiny_model, by=3.0)
    alone = [complete(model, tiny_tokenizer, [p], 16)[0] for p in PROMPTS]
    for batch_size in (2, 256):
        together = complete(model, tiny_tokenizer, PROMPTS, 16, batch_size=batch_size)
        assert together == alone
    assert len({reply.text for reply in alone}) > 2


def test_a_prompt_is_one_user_turn_unless_chat_is_false(
    tiny_model, tiny_tokenizer, monkeypatch
):
    seen = []

    def spy(model, input_ids, mask, *rest):
        seen.append(tiny_tokenizer.decode(input_ids[0]))
        return torch.full((1, 1), 1)

    monkeypatch.setattr(sampler, "sample", spy)
    turn = [{"role": "user", "content": "Peru"}]
    system = [{"role": "system", "content": "Is"}]
    for prompt, chat in (("Peru", True), (turn, True), ("Peru", False)):
        complete(tiny_model, tiny_tokenizer, [prompt], chat=chat)
    complete(tiny_model, tiny_tokenizer, [system + turn])
    as_turn = "<|user|> Peru<|end|><|assistant|>"
    assert seen == [as_turn, as_turn, " Peru", f"<|system|> Is<|end|>{as_turn}"]


def test_a_reply_says_whether_it_ended_and_leaves_special_tokens_out(
    tiny_model, tiny_tokenizer, monkeypatch
):
    end, pad = tiny_tokenizer.eos_token_id, tiny_tokenizer.pad_token_id
    paris = tiny_tokenizer("Paris is", add_special_tokens=False)["input_ids"]
    new = torch.tensor([paris + [end, pad], paris + paris[:2]])
    monkeypatch.setattr(sampler, "sample", lambda *arguments: new)
    ended, cut = complete(tiny_model, tiny_tokenizer, ["Peru", "Peru"])
    assert ended.text == "Paris is" and ended.tokens == paris + [end] and ended.ended
    assert cut.tokens == paris + paris[:2] and not cut.ended


def test_a_reply_ends_at_any_end_token_and_the_template_gets_its_arguments(
    tiny_model, tiny_tokenizer, monkeypatch
):
    paris, yes = tiny_tokenizer("Paris Yes", add_special_tokens=False)["input_ids"][:2]
    tiny_model.generation_config.eos_token_id = [tiny_tokenizer.eos_token_id, yes]
    seen = []

    def spy(model, input_ids, mask, new, temperature, ends, *rest):
        seen.append((tiny_tokenizer.decode(input_ids[0]), ends))
        return torch.tensor([[paris, yes, paris]])

    monkeypatch.setattr(sampler, "sample", spy)
    tiny_tokenizer = copy.deepcopy(tiny_tokenizer)
    tiny_tokenizer.chat_template += "{% if thinking %}<|system|>{% endif %}"
    (reply,) = complete(
        tiny_model, tiny_tokenizer, ["Peru"], chat_template_kwargs={"thinking": True}
    )
    assert reply.tokens == [paris, yes] and reply.ended
    text, ends = seen[0]
    assert text.endswith("<|assistant|><|system|>")
    assert ends == [tiny_tokenizer.eos_token_id, yes]


def test_replies_are_made_in_eval_mode_which_is_then_undone(
    tiny_model, tiny_tokenizer, monkeypatch
):
    modes, forward = [], tiny_model.forward
    monkeypatch.setattr(
        tiny_model,
        "forward",
        lambda *x, **kw: modes.append(tiny_model.training) or forward(*x, **kw),
    )
    tiny_model.train()
    complete(tiny_model, tiny_tokenizer, PROMPTS, 3)
    assert len(modes) >= 3 and not any(modes) and tiny_model.training


def test_the_seed_fixes_the_replies(tiny_model, tiny_tokenizer):
    def draw(seed):
        return complete(tiny_model, tiny_tokenizer, PROMPTS, 8, 1.0, seed=seed)

    assert draw(0) == draw(0) != draw(1)
    assert complete(tiny_model, tiny_tokenizer, []) == []


def test_prompts_that_do_not_fit_are_refused(tiny_model, tiny_tokenizer, monkeypatch):
    with pytest.raises(AlignlabError, match="Prompt 1 has .* 128 positions"):
        complete(tiny_model, tiny_tokenizer, ["Peru", 200 * "Peru "])
    with pytest.raises(AlignlabError, match="Prompt 0 is empty"):
        complete(tiny_model, tiny_tokenizer, [""], chat=False)
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    with pytest.raises(AlignlabError, match="no chat template.*chat=False"):
        complete(tiny_model, tiny_tokenizer, ["Peru"])


def test_models_that_cannot_complete_are_refused_in_words(tiny_model, tiny_tokenizer):
    config = BartConfig(vocab_size=360, d_model=16, encoder_layers=1, decoder_layers=1)
    with pytest.raises(AlignlabError, match="encoder-decoder"):
        complete(BartForConditionalGeneration(config), tiny_tokenizer, PROMPTS)
    more = copy.deepcopy(tiny_tokenizer)
    more.add_special_tokens({"pad_token": "<|new|>"})
    with pytest.raises(AlignlabError, match="resize_token_embeddings"):
        complete(tiny_model, more, PROMPTS)


def test_only_what_is_sampled_draws_random_numbers(tiny_model, tiny_tokenizer):
    state = torch.get_rng_state()
    complete(tiny_model, tiny_tokenizer, PROMPTS, 4)
    complete(tiny_model, tiny_tokenizer, PROMPTS, 4, temperature=1.0, seed=0)
    assert torch.equal(state, torch.get_rng_state())


# --- What a GPU does, on the CPU ------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_shortest_wait_has_the_models_distribution(temperature):
    torch.manual_seed(0)
    logits, n = 2 * torch.randn(40), 40_000
    generator = torch.Generator().manual_seed(1)
    chosen = sampler._race(logits.expand(n, -1), temperature, generator)
    expected = n * (logits / temperature).softmax(-1)
    counts = torch.bincount(chosen, minlength=len(expected))
    often = expected >= 10
    statistic = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = int(often.sum())
    assert freedom > 10
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


def test_tokens_that_cannot_come_never_win():
    never = -torch.inf
    logits = torch.tensor([never, 0.0, never, 3.0, never]).expand(20_000, 5)
    counts = torch.bincount(sampler._race(logits, 1.0, None), minlength=5)
    assert counts[[0, 2, 4]].sum() == 0 and counts.min() == 0 < counts[1]


def test_looking_less_often_gives_the_same_replies(tiny_model, monkeypatch):
    ids, mask = prompts([3, 7, 4, 5], tiny_model.config.vocab_size)
    ends = list(range(0, tiny_model.config.vocab_size, 7))
    greedy = dict(max_new_tokens=20, temperature=0, eos_token_id=ends, pad_token_id=0)
    often = sample(tiny_model, ids, mask, **greedy)
    monkeypatch.setattr(sampler, "_looks_every", lambda device: 8)
    monkeypatch.setattr(sampler, "_takes_spread_mask", lambda model, ids: True)
    seldom = sample(tiny_model, ids, mask, **greedy)
    assert often.shape[1] < 20  # all of them end
    assert torch.equal(often, seldom)
