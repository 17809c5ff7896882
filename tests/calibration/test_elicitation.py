"""Confidences of a small random model against its own probabilities, token by token."""

import math
import warnings

import numpy as np
import peft
import pytest
import torch
import transformers

from alignlab.calibration import all_options, top_label
from alignlab.calibration.elicitation import (
    bank_confidence,
    letter_prompt,
    multiple_choice,
    p_true,
    parse_confidence,
    self_consistency,
    sequence_probability,
    verbalised_confidence,
)
from alignlab.errors import AlignlabError
from alignlab.models.sampler import complete
from tests.tiny_models import VOCABULARY, model, tokenizer

PROMPTS = ["The capital of Norway is", "The money of Peru is the", "Is gold a metal?"]
OPTIONS = [" Paris", " Oslo", " the yen of Japan", " Kenya"]


def by_hand(model, tokenizer, prompt, option, end=False):
    """Log-probability of each of the option's tokens, one forward pass a token."""
    ids = tokenizer(prompt)["input_ids"]
    tail = tokenizer(prompt + option)["input_ids"][len(ids) :]
    tail += [tokenizer.eos_token_id] if end else []
    result = []
    for token in tail:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        result.append(logits.log_softmax(0)[token].item())
        ids = [*ids, token]
    return result


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("end", [False, True])
def test_options_have_the_probabilities_of_their_tokens(
    tiny_model, tiny_tokenizer, reduction, end
):
    result = multiple_choice(
        tiny_model,
        tiny_tokenizer,
        PROMPTS,
        OPTIONS,
        reduction=reduction,
        end=end,
        chat=False,
        batch_size=5,
    )
    for i, prompt in enumerate(PROMPTS):
        parts = [by_hand(tiny_model, tiny_tokenizer, prompt, o, end) for o in OPTIONS]
        logs = [sum(p) / (1 if reduction == "sum" else len(p)) for p in parts]
        assert result.log_probs[i] == pytest.approx(logs, rel=1e-4)
        weights = np.exp(logs) / np.exp(logs).sum()
        assert result.probabilities[i] == pytest.approx(weights, rel=1e-3)
        inside = sum(math.exp(sum(p)) for p in parts)
        assert result.outside[i] == pytest.approx(1 - inside, rel=1e-4)
    assert result.probabilities.std() > 0.05


def test_letters_in_one_pass_are_letters_one_by_one(tiny_model, tiny_tokenizer):
    prompts = [letter_prompt(p, ["gold", "iron"], " ") for p in PROMPTS]
    letters = list("ABCD")
    assert all(len(tiny_tokenizer("x: " + x)["input_ids"]) for x in letters)
    one_pass = multiple_choice(tiny_model, tiny_tokenizer, prompts, letters)
    chats = [
        tiny_tokenizer.apply_chat_template(
            [{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True
        )
        for p in prompts
    ]
    for i, chat in enumerate(chats):
        ids = tiny_tokenizer(chat, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logs = tiny_model(torch.tensor([ids])).logits[0, -1].double().log_softmax(0)
        whole = [
            tiny_tokenizer(chat + x, add_special_tokens=False)["input_ids"][len(ids) :]
            for x in letters
        ]
        expected = []
        for tail in whole:
            row = torch.tensor([ids + tail])
            with torch.no_grad():
                every = tiny_model(row).logits[0].double().log_softmax(1)
            places = range(len(ids) - 1, len(ids) + len(tail) - 1)
            expected.append(sum(every[p, t].item() for p, t in zip(places, tail)))
        assert one_pass.log_probs[i] == pytest.approx(expected, rel=1e-4)
        if all(len(tail) == 1 for tail in whole):
            shares = logs.exp()[[tail[0] for tail in whole]]
            assert one_pass.outside[i] == pytest.approx(1 - shares.sum().item())


def test_one_token_options_are_worth_the_same_beside_a_longer_one(
    tiny_model, tiny_tokenizer
):
    tokens = tiny_tokenizer.convert_ids_to_tokens(range(len(tiny_tokenizer)))
    singles = [t for t in ("Ġis", "Ġthe", "Ġof", "Ġcapital") if t in tokens]
    options = [" " + token[1:] for token in singles]
    assert len(options) >= 2
    settings = dict(chat=False, batch_size=2)
    model = tiny_model, tiny_tokenizer, PROMPTS
    short = multiple_choice(*model, options, **settings)
    # What goes on from an option is part of it, and leaves as much outside.
    long = multiple_choice(*model, [*options, options[0] + " capital"], **settings)
    np.testing.assert_allclose(short.log_probs, long.log_probs[:, :-1], rtol=1e-4)
    np.testing.assert_allclose(short.outside, long.outside, rtol=1e-4)


def test_a_model_with_absolute_positions_is_asked_alike(tiny_tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tiny_tokenizer),
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.5,
    )
    gpt2 = GPT2LMHeadModel(config).eval()
    for options in ([" is", " the"], OPTIONS):
        result = multiple_choice(gpt2, tiny_tokenizer, PROMPTS, options, chat=False)
        for i, prompt in enumerate(PROMPTS):
            logs = [sum(by_hand(gpt2, tiny_tokenizer, prompt, o)) for o in options]
            assert result.log_probs[i] == pytest.approx(logs, rel=1e-4)


def test_all_tokens_of_the_vocabulary_leave_nothing_outside(tiny_model, tiny_tokenizer):
    ids = tiny_tokenizer(PROMPTS[0])["input_ids"]
    every = [[token] for token in range(len(tiny_tokenizer))]
    from alignlab.calibration.elicitation import _outside, _score

    (row,) = _score(tiny_model, tiny_tokenizer, [ids], [every], 8, False)
    assert np.exp(row).sum() == pytest.approx(1)
    assert _outside(row, every) == pytest.approx(0, abs=1e-9)


def test_of_options_that_go_on_from_others_the_shorter_one_counts():
    from alignlab.calibration.elicitation import _outside

    tails = [[1], [1, 2], [3, 4], [3, 4], [5, 6], [5, 7], [3, 4, 9]]
    logs = np.log([0.3, 0.2, 0.1, 0.1, 0.15, 0.05, 0.01])
    assert _outside(logs, tails) == pytest.approx(1 - 0.3 - 0.1 - 0.15 - 0.05)


def test_options_that_go_on_from_others_count_once(tiny_model, tiny_tokenizer):
    longer = [" Paris", " Paris and the yen", " Oslo", " Oslo"]
    plain = multiple_choice(
        tiny_model, tiny_tokenizer, PROMPTS, [" Paris", " Oslo"], chat=False
    )
    nested = multiple_choice(tiny_model, tiny_tokenizer, PROMPTS, longer, chat=False)
    assert nested.outside == pytest.approx(plain.outside, rel=1e-6)


def test_items_may_have_options_of_their_own(tiny_model, tiny_tokenizer):
    options = [[" Paris", " Oslo"], [" sol", " yen", " the sol"], [" Yes"]]
    result = multiple_choice(tiny_model, tiny_tokenizer, PROMPTS, options, chat=False)
    assert [len(row) for row in result.probabilities] == [2, 3, 1]
    assert all(row.sum() == pytest.approx(1) for row in result.probabilities)
    second = multiple_choice(
        tiny_model, tiny_tokenizer, PROMPTS[:2], options[:2], chat=False
    )
    confidence, correct = top_label(second.probabilities, [0, 2])
    assert confidence == pytest.approx([row.max() for row in second.probabilities])
    assert len(all_options(second.probabilities, [0, 2])[0]) == 5
    assert set(correct) <= {0.0, 1.0}


def test_batches_and_order_change_nothing(tiny_model, tiny_tokenizer):
    settings = dict(chat=False)
    all_at_once = multiple_choice(
        tiny_model, tiny_tokenizer, PROMPTS, OPTIONS, **settings
    )
    first = multiple_choice(
        tiny_model, tiny_tokenizer, PROMPTS[::-1], OPTIONS, batch_size=1, **settings
    )
    np.testing.assert_allclose(
        first.log_probs[::-1], all_at_once.log_probs, rtol=1e-4, atol=1e-5
    )
    tiny_model.train()
    multiple_choice(tiny_model, tiny_tokenizer, PROMPTS, OPTIONS, **settings)
    assert tiny_model.training


def test_sequence_probability_is_the_product(tiny_model, tiny_tokenizer):
    answers = [" Oslo", " sol of Peru", " Yes"]
    for reduction in ("sum", "mean"):
        result = sequence_probability(
            tiny_model,
            tiny_tokenizer,
            PROMPTS,
            answers,
            reduction=reduction,
            chat=False,
        )
        for i in range(3):
            parts = by_hand(tiny_model, tiny_tokenizer, PROMPTS[i], answers[i], True)
            log = sum(parts) / (1 if reduction == "sum" else len(parts))
            assert result[i] == pytest.approx(math.exp(log), rel=1e-3)


def test_replies_are_sampled_as_often_as_their_probability(tiny_model, tiny_tokenizer):
    """All replies of one token that can be written as text, against 4,000 samples."""
    prompt, end = PROMPTS[0], tiny_tokenizer.eos_token_id
    ids = tiny_tokenizer(prompt)["input_ids"]
    words = [tiny_tokenizer.decode([token]) for token in range(len(tiny_tokenizer))]
    texts = {
        token: text
        for token, text in enumerate(words)
        if tiny_tokenizer(prompt + text)["input_ids"] == [*ids, token]
    }
    with torch.no_grad():
        tiny_model.get_output_embeddings().weight[end] *= 5  # replies that end
        replies = complete(
            tiny_model, tiny_tokenizer, [prompt] * 4000, 2, 1.0, seed=0, chat=False
        )
    wanted = {(token, end) for token in texts}
    share = np.mean([tuple(reply.tokens) in wanted for reply in replies])
    result = sequence_probability(
        tiny_model,
        tiny_tokenizer,
        [prompt] * len(texts),
        list(texts.values()),
        chat=False,
    )
    assert share > 0.02
    assert result.sum() == pytest.approx(share, abs=3 * math.sqrt(share / 4000))


def test_p_true_is_the_share_of_true(tiny_model, tiny_tokenizer):
    questions, answers = ["Is gold a metal?", "Say it in one word."], ["Yes.", "Oslo."]
    template = "{question} {answer} Right:"
    result = p_true(tiny_model, tiny_tokenizer, questions, answers, template=template)
    for i, (question, answer) in enumerate(zip(questions, answers)):
        prompt = f"{question} {answer} Right:"
        true, false = (
            math.exp(sum(by_hand(tiny_model, tiny_tokenizer, prompt, word)))
            for word in (" True", " False")
        )
        assert result.confidence[i] == pytest.approx(true / (true + false), rel=1e-3)
        assert result.outside[i] == pytest.approx(1 - true - false, rel=1e-4)
    with pytest.raises(ValueError, match="questions are 2 and answers 1"):
        p_true(tiny_model, tiny_tokenizer, questions, answers[:1])


def test_p_true_sums_the_spellings_of_a_verdict(tiny_model, tiny_tokenizer):
    """A wording that goes on from another, or repeats it, is part of it."""
    true, false = (" is", " the", " is gold"), (" of", " of", " capital")
    with pytest.warns(UserWarning, match="for 3 of 3 items .*two verdicts .with prob"):
        result = p_true(
            tiny_model,
            tiny_tokenizer,
            PROMPTS,
            PROMPTS,
            template="{question} {answer}",
            words=(true, false),
        )
    for i, prompt in enumerate(PROMPTS):
        asked = f"{prompt} {prompt}"

        p = {
            word: math.exp(sum(by_hand(tiny_model, tiny_tokenizer, asked, word)))
            for word in (" is", " the", " of", " capital")
        }
        yes, no = p[" is"] + p[" the"], p[" of"] + p[" capital"]
        assert result.confidence[i] == pytest.approx(yes / (yes + no), rel=1e-4)
        assert result.outside[i] == pytest.approx(1 - yes - no, rel=1e-4)
    with pytest.raises(ValueError, match="each verdict needs words of its own"):
        p_true(tiny_model, tiny_tokenizer, ["a"], ["b"], words=((" x",), (" x", " y")))


def test_what_is_read_says_when_most_is_left_out(
    tiny_model, tiny_tokenizer, monkeypatch
):
    """Log-probabilities by hand: 0.989 outside warns, 0.4 does not."""
    from alignlab.calibration import elicitation

    def ask(inside):
        def score(model, tokenizer, start, tails, *rest):
            share = math.log(inside / len(tails[0]))
            return [np.full(len(own), share) for own in tails]

        monkeypatch.setattr(elicitation, "_score", score)
        true = p_true(tiny_model, tiny_tokenizer, ["a"], ["b"])
        bank = bank_confidence(tiny_model, tiny_tokenizer, ["a"])
        prompt = letter_prompt("a", ["x", "y"], " ")
        settings = dict(chat=False)
        letters = multiple_choice(
            tiny_model, tiny_tokenizer, [prompt], [" A", " B"], **settings
        )
        return true, bank, letters

    with pytest.warns(UserWarning) as caught:
        results = ask(0.011)
    assert [round(float(r.outside[0]), 3) for r in results] == [0.989] * 3
    texts = [str(w.message) for w in caught]
    assert len(texts) == 3 and all("probability 0.989 on average" in t for t in texts)
    assert ["verdicts" in texts[0], "bank" in texts[1], "letters" in texts[2]] == [
        1
    ] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(0.6)
        monkeypatch.undo()
        multiple_choice(tiny_model, tiny_tokenizer, PROMPTS, OPTIONS, chat=False)


def test_a_bank_of_words_gives_their_mean_value(tiny_model, tiny_tokenizer):
    result = bank_confidence(tiny_model, tiny_tokenizer, PROMPTS)
    digits = multiple_choice(tiny_model, tiny_tokenizer, PROMPTS, list("0123456789"))
    expected = digits.probabilities @ (np.arange(10) / 10 + 0.05)
    assert result.confidence == pytest.approx(expected, rel=1e-9)
    second = bank_confidence(
        tiny_model, tiny_tokenizer, PROMPTS, bank=["No", "Yes"], values=[0.0, 1.0]
    )
    yes = multiple_choice(tiny_model, tiny_tokenizer, PROMPTS, ["No", "Yes"])
    assert second.confidence == pytest.approx(yes.probabilities[:, 1])
    with pytest.raises(ValueError, match="bank are 2 and values 1"):
        bank_confidence(
            tiny_model, tiny_tokenizer, PROMPTS, bank=["a", "b"], values=[1]
        )
    with pytest.raises(ValueError, match=r"values\[1\] is 2.0"):
        bank_confidence(
            tiny_model, tiny_tokenizer, PROMPTS, bank=["a", "b"], values=[0, 2]
        )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("85%", 0.85),
        ("I am about 85 % sure, 9 times of 10.", 0.85),
        ("around 7.5 percent", 0.075),
        ("70 per cent", 0.7),
        ("9/10", 0.9),
        ("9 out of 10", 0.9),
        ("0.85", 0.85),
        (".5", 0.5),
        ("Probability: 0.9.", 0.9),
        ("85", 0.85),
        ("100", 1.0),
        ("1", 1.0),
        ("0", 0.0),
        ("1.0", 1.0),
        ("no idea", None),
        ("", None),
        ("150%", None),
        ("120", None),
        ("-0.5", None),
        ("11/10", None),
        ("1/0", None),
    ],
)
def test_confidences_are_read_from_text(text, value):
    result = parse_confidence(text)
    assert math.isnan(result) if value is None else result == pytest.approx(value)


def test_verbalised_confidence_reads_greedy_replies(tiny_model, tiny_tokenizer):
    confidence, texts = verbalised_confidence(
        tiny_model, tiny_tokenizer, PROMPTS, max_new_tokens=8
    )
    greedy = complete(tiny_model, tiny_tokenizer, PROMPTS, 8)
    assert texts == [reply.text for reply in greedy]
    for value, text in zip(confidence, texts):
        expected = parse_confidence(text)
        assert value == expected or math.isnan(value) and math.isnan(expected)


def test_self_consistency_counts_alike_answers_together(
    tiny_model, tiny_tokenizer, monkeypatch
):
    from alignlab.calibration import elicitation
    from alignlab.models.sampler import Completion

    says = ["Oslo.", "oslo", "Paris", "The Oslo", "Paris."]
    says += ["b", "a", "a", "b", "c"]

    def sampled(model, tokenizer, prompts, *args):
        assert prompts == [PROMPTS[0]] * 5 + [PROMPTS[1]] * 5
        return [Completion(text, [], True) for text in says]

    monkeypatch.setattr(elicitation, "complete", sampled)
    result = self_consistency(tiny_model, tiny_tokenizer, PROMPTS[:2], n_samples=5)
    assert result.answers == ["Oslo.", "b"]  # of the tie, the one seen first
    assert result.confidence == pytest.approx([0.6, 0.4])
    assert result.samples == [says[:5], says[5:]]


def test_self_consistency_is_reproducible_and_certain_when_greedy(
    tiny_model, tiny_tokenizer
):
    settings = dict(n_samples=6, max_new_tokens=4)
    first = self_consistency(tiny_model, tiny_tokenizer, PROMPTS, **settings)
    second = self_consistency(tiny_model, tiny_tokenizer, PROMPTS, **settings)
    assert first.samples == second.samples
    assert any(len(set(own)) > 1 for own in first.samples)
    greedy = self_consistency(
        tiny_model, tiny_tokenizer, PROMPTS, temperature=0.0, **settings
    )
    assert greedy.confidence.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="n_samples is 0"):
        self_consistency(tiny_model, tiny_tokenizer, PROMPTS, n_samples=0)


def test_letter_prompts():
    text = letter_prompt("Which is a metal?", ["gold", "wood"])
    assert text == "Which is a metal?\nA. gold\nB. wood\nAnswer:"
    assert letter_prompt("Q?", ["x"], " ") == "Q? A. x Answer:"
    with pytest.raises(ValueError, match="options are 0"):
        letter_prompt("Q?", [])


def test_wrong_arguments_are_named(tiny_model, tiny_tokenizer):
    def ask(prompts, options, **settings):
        return multiple_choice(
            tiny_model, tiny_tokenizer, prompts, options, chat=False, **settings
        )

    with pytest.raises(ValueError, match="reduction is 'max'"):
        ask(PROMPTS, OPTIONS, reduction="max")
    with pytest.raises(ValueError, match="options are 2 lists for 3 prompts"):
        ask(PROMPTS, [[" a"], [" b"]])
    with pytest.raises(ValueError, match=r"options\[1\] is empty"):
        ask(PROMPTS, [[" a"], [], [" b"]])
    with pytest.raises(ValueError, match="prompts are empty"):
        ask([], OPTIONS)
    with pytest.raises(AlignlabError, match="Prompt 0: the tokens of the prompt with"):
        ask(["The capital of Norw"], ["ay", "egian"])
    with pytest.raises(AlignlabError, match="Prompt 1: .*option ''"):
        ask(PROMPTS, [[" a"], [""], [" b"]])
    with pytest.raises(AlignlabError, match="prompt 0 has .* the model has 128"):
        ask(["the " * 200], OPTIONS)
    tiny_tokenizer.chat_template, kept = None, tiny_tokenizer.chat_template
    try:
        with pytest.raises(AlignlabError, match="no chat template"):
            multiple_choice(tiny_model, tiny_tokenizer, PROMPTS, OPTIONS)
    finally:
        tiny_tokenizer.chat_template = kept


# --- Conversations and tokenizers of all kinds ------------------------------------

UNFINISHED = [
    {"role": "user", "content": "What is the capital of Norway?"},
    {"role": "assistant", "content": "The answer is"},
]


def log_prob_behind(model, tokenizer, text, continuation):
    """Log-probability of the continuation's tokens, special ones as they are written,
    one forward pass a token."""
    ids, log_prob = tokenizer(text, add_special_tokens=False)["input_ids"], 0.0
    for token in tokenizer(continuation, add_special_tokens=False)["input_ids"]:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        log_prob += logits.log_softmax(0)[token].item()
        ids = [*ids, token]
    return log_prob


@pytest.mark.parametrize(
    ("style", "opening", "end", "end_of_text"),
    [
        ("plain", "<|user|>Peru<|end|><|assistant|>", "<|end|>", "<|end|>"),
        (
            "chatml",
            "<|im_start|>user\nPeru<|im_end|>\n<|im_start|>assistant\n",
            "<|im_end|>",  # the line break behind it is not the model's
            "<|im_end|>",
        ),
        (
            "llama3",
            "<|head|>user<|head|>Peru<|eot|><|head|>assistant<|head|>",
            "<|eot|>",
            "<|text_end|>",
        ),
        ("endless", "user: Peru\nassistant:", "<|end|>", "<|end|>"),
    ],
    ids=["plain", "chatml", "llama3", "endless"],
)
def test_a_reply_ends_as_the_chat_template_ends_it(style, opening, end, end_of_text):
    llama, tok = model(), tokenizer(style)
    expected = log_prob_behind(llama, tok, opening, " sol" + end)
    asked = llama, tok, ["Peru"], [" sol"]
    assert np.log(sequence_probability(*asked)) == pytest.approx([expected], rel=1e-4)
    both = multiple_choice(llama, tok, ["Peru"], [" sol", " Oslo"], end=True)
    other = log_prob_behind(llama, tok, opening, " Oslo" + end)
    assert both.log_probs[0] == pytest.approx([expected, other], rel=1e-4)
    plain = log_prob_behind(llama, tok, "Peru", " sol" + end_of_text)
    result = np.log(sequence_probability(*asked, chat=False))
    assert result == pytest.approx([plain], rel=1e-4)


def test_plain_text_is_not_ended_without_an_eos_token():
    llama, tok = model(), tokenizer()
    tok.eos_token = None
    with pytest.raises(AlignlabError, match="no EOS token .*(?s:.*)end=False"):
        sequence_probability(llama, tok, ["Peru"], [" sol"], chat=False)
    assert sequence_probability(llama, tok, ["Peru"], [" sol"], end=False, chat=False)


def test_an_unfinished_turn_is_continued():
    llama, tok = model(), tokenizer()
    text = (
        "<|user|>What is the capital of Norway?<|end|><|assistant|>The answer is",
        "<|user|>Peru<|end|><|assistant|>",
    )
    options = [" Oslo", " sol"]
    expected = [
        [log_prob_behind(llama, tok, asked, option) for option in options]
        for asked in text
    ]
    for chat in (True, False):  # a conversation is one in either case
        prompts = [UNFINISHED, [{"role": "user", "content": "Peru"}]]
        result = multiple_choice(llama, tok, prompts, options, chat=chat)
        assert result.log_probs == pytest.approx(np.array(expected), rel=1e-4)
    bank = bank_confidence(llama, tok, [UNFINISHED], bank=options, values=[0, 1])
    odds = expected[0][1] - expected[0][0]
    assert bank.confidence == pytest.approx([1 / (1 + math.exp(-odds))], rel=1e-3)
    ended = log_prob_behind(llama, tok, text[0], " Oslo<|end|>")
    reply = sequence_probability(llama, tok, [UNFINISHED], [" Oslo"])
    assert np.log(reply) == pytest.approx([ended], rel=1e-4)


@pytest.mark.filterwarnings("ignore:for 1 of 1 items")
def test_an_eos_that_the_tokenizer_appends_is_left_out():
    llama, options = model(), [" Oslo", " sol"]
    for chat in (False, True):
        usual, same = [
            (
                multiple_choice(llama, tok, ["Peru"], options, chat=chat).log_probs,
                sequence_probability(llama, tok, ["Peru"], [" sol"], chat=chat),
                p_true(llama, tok, ["Peru"], ["sol"], chat=chat).confidence,
            )
            for tok in (tokenizer(), tokenizer(appends_eos=True))
        ]
        for value, other in zip(usual, same):
            assert (value == other).all()


def test_bos_stands_in_front_once():
    from tokenizers.processors import TemplateProcessing

    llama, tok = model(), tokenizer()
    bos = tok.convert_tokens_to_ids("<|head|>")
    tok.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|head|> $A <|end|>",
        special_tokens=[("<|head|>", bos), ("<|end|>", tok.eos_token_id)],
    )
    tok.bos_token = "<|head|>"
    assert tok("Peru")["input_ids"][0] == bos
    expected = log_prob_behind(llama, tok, "<|head|>Peru", " sol")
    prompts = ["Peru", "<|head|>Peru"]
    result = multiple_choice(llama, tok, prompts, [" sol"], chat=False).log_probs
    assert result[:, 0] == pytest.approx([expected] * 2, rel=1e-4)
    alone = multiple_choice(llama, tok, [""], ["Peru"], chat=False).log_probs
    expected = log_prob_behind(llama, tok, "<|head|>", "Peru")
    assert alone[0] == pytest.approx([expected], rel=1e-4)


@pytest.mark.filterwarnings("ignore:for 1 of 1 items")
def test_the_chat_template_takes_arguments():
    llama, tok = model(), tokenizer("chatml")
    opening = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think></think>"
    thinks_not = dict(chat_template_kwargs={"enable_thinking": False})
    asked = opening.format("Peru")
    options = [" Oslo", " sol"]
    expected = [log_prob_behind(llama, tok, asked, option) for option in options]
    result = multiple_choice(llama, tok, ["Peru"], options, **thinks_not)
    assert result.log_probs[0] == pytest.approx(expected, rel=1e-4)
    share = 1 / (1 + math.exp(expected[0] - expected[1]))
    bank = dict(bank=options, values=[0, 1])
    result = bank_confidence(llama, tok, ["Peru"], **bank, **thinks_not)
    assert result.confidence == pytest.approx([share], rel=1e-3)
    settings = dict(template="{question}", words=(" sol", " Oslo"), chat=True)
    result = p_true(llama, tok, ["Peru"], [""], **settings, **thinks_not)
    assert result.confidence == pytest.approx([share], rel=1e-3)
    ended = log_prob_behind(llama, tok, asked, " sol<|im_end|>")
    result = sequence_probability(llama, tok, ["Peru"], [" sol"], **thinks_not)
    assert np.log(result) == pytest.approx([ended], rel=1e-4)
    (greedy,) = complete(llama, tok, [asked], 6, chat=False)
    (usual,) = complete(llama, tok, ["Peru"], 6)
    assert greedy.text != usual.text
    settings = dict(max_new_tokens=6, **thinks_not)
    assert verbalised_confidence(llama, tok, ["Peru"], **settings)[1] == [greedy.text]
    settings |= dict(temperature=0.0, n_samples=2)
    result = self_consistency(llama, tok, ["Peru"], **settings)
    assert result.samples == [[greedy.text] * 2]


# --- Models that cannot be asked --------------------------------------------------

ASK = {
    "options": lambda llm, tok: multiple_choice(llm, tok, ["Peru"], ["sol", "yen"]),
    "reply": lambda llm, tok: sequence_probability(llm, tok, ["Peru"], ["sol"]),
    "true": lambda llm, tok: p_true(llm, tok, ["Peru"], ["sol"]),
    "bank": lambda llm, tok: bank_confidence(llm, tok, ["Peru"]),
    "words": lambda llm, tok: verbalised_confidence(llm, tok, ["Peru"]),
    "samples": lambda llm, tok: self_consistency(llm, tok, ["Peru"], n_samples=2),
}


@pytest.mark.parametrize("ask", ASK)
def test_what_is_no_causal_lm_is_refused(ask):
    sizes = dict(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    ids = dict(vocab_size=VOCABULARY, decoder_start_token_id=0)
    t5 = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, **ids))
    with pytest.raises(AlignlabError, match="is an encoder-decoder"):
        ASK[ask](t5, tokenizer())
    for config in (peft.PrefixTuningConfig, peft.PromptTuningConfig):
        settings = config(task_type="CAUSAL_LM", num_virtual_tokens=3)
        with pytest.raises(AlignlabError, match="virtual tokens come before every"):
            ASK[ask](peft.get_peft_model(model(), settings), tokenizer())
    bert = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    with pytest.raises(AlignlabError, match="a token sees those that follow"):
        ASK[ask](transformers.BertLMHeadModel(bert).eval(), tokenizer())


@pytest.mark.parametrize("ask", ASK)
def test_tokens_that_the_model_lacks_are_refused(ask):
    tok = tokenizer()
    tok.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(AlignlabError, match="resize_token_embeddings"):
        ASK[ask](model(), tok)
