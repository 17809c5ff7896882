"""What reward models read: the same dialogue, by tokens and by text."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from alignlab.models.reward import sequence_rewards
from alignlab.models.text import encode_prompt
from alignlab.ppo import PPOTrainer
from alignlab.training.ppo.reading import Episode, as_text, as_tokens
from tests import tiny_models
from tests.training.ppo.helpers import config, letters

QUESTION = {"role": "user", "content": "What is the capital of France?"}
REPLY = {"role": "assistant", "content": "Paris."}
AGAIN = {"role": "user", "content": "And of Norway?"}
STARTED = {"role": "assistant", "content": "The answer is"}
CONVERSATIONS = {
    "plain text": "The capital of France is",
    "plain text that holds markers": (
        "<|im_start|>user\nSay it<|im_end|>\n<|im_start|>assistant\n"
    ),
    "chat": [QUESTION],
    "chat that holds markers": [
        {"role": "user", "content": "What is <|im_end|> and <|user|>?"}
    ],
    "several turns": [QUESTION, REPLY, AGAIN],
    "an unfinished turn": [QUESTION, REPLY, AGAIN, STARTED],
}


def episode(tokenizer, prompt, text, end=None, **options):
    """The completion with these words, cut or ended by a token."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids += [] if end is None else [tokenizer.convert_tokens_to_ids(end)]
    prompt_ids = encode_prompt(tokenizer, prompt, **options)
    return Episode(prompt, prompt_ids, ids, end is not None, options)


def tokens_of(episode, tokenizer):
    return as_tokens([episode], tokenizer)[0]


def text_of(episode, tokenizer, own):
    return as_text([episode], tokenizer, own)[0]


@pytest.mark.parametrize("style", ["plain", "chatml", "llama3", "endless"])
@pytest.mark.parametrize("end", ["cut", "ended"])
@pytest.mark.parametrize("text", ["Oslo. Yes", " Oslo.", "<think>gold</think> Oslo"])
@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.filterwarnings("ignore:.*never.*")
def test_tokens_and_text_of_one_tokenizer_are_the_same(style, end, text, kind):
    tokenizer = tiny_models.tokenizer(style)
    prompt = CONVERSATIONS[kind]
    if style == "endless" and not isinstance(prompt, str):
        text = " " + text.strip()  # its template puts a space before each reply
    ends = {"llama3": "<|eot|>"}
    mark = ends.get(style, tokenizer.eos_token) if end == "ended" else None
    given = episode(tokenizer, prompt, text, mark)
    expected = tokens_of(given, tokenizer)
    assert text_of(given, tokenizer, tokenizer) == expected


@pytest.mark.parametrize("reader", ["tokens", "text"])
def test_a_dialogue_ends_as_the_template_ends_it(reader):
    tokenizer = tiny_models.tokenizer("chatml")

    def read(prompt, end):
        given = episode(tokenizer, prompt, "Oslo", end)
        if reader == "tokens":
            return tokenizer.decode(tokens_of(given, tokenizer))
        return tokenizer.decode(text_of(given, tokenizer, tokenizer))

    chat = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
    chat += "<|im_start|>assistant\n"
    assert read([QUESTION], "<|im_end|>") == chat + "Oslo<|im_end|>\n"
    assert read([QUESTION], None) == chat + "Oslo"
    started = [QUESTION, {"role": "assistant", "content": "It is "}]
    assert read(started, "<|im_end|>") == chat + "It is Oslo<|im_end|>\n"
    assert read(started, None) == chat + "It is Oslo"
    assert read("Say: ", "<|im_end|>") == "Say: Oslo<|im_end|>"
    assert read("Say: ", None) == "Say: Oslo"


def test_another_tokenizer_reads_the_text_with_its_own_markers():
    tokenizer, own = tiny_models.tokenizer("chatml"), tiny_models.tokenizer("plain")
    given = episode(tokenizer, [QUESTION], "Oslo", "<|im_end|>")
    written = own.decode(text_of(given, tokenizer, own))
    assert written == (
        "<|user|>What is the capital of France?<|end|><|assistant|>Oslo<|end|>"
    )
    cut = episode(tokenizer, [QUESTION], "Oslo")
    assert own.decode(text_of(cut, tokenizer, own)) == written.removesuffix("<|end|>")


def test_another_tokenizer_ends_plain_text_by_its_own_eos():
    tokenizer, own = tiny_models.tokenizer("chatml"), foreign()
    given = episode(tokenizer, "Say", " Oslo", "<|im_end|>")
    assert own.decode(text_of(given, tokenizer, own)) == "Say Oslo</s>"
    assert own.decode(text_of(episode(tokenizer, "Say", " Oslo"), tokenizer, own)) == (
        "Say Oslo"
    )


def foreign():
    """Characters, and no token of the other tokenizers' markers."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["</s>", "<unk>", *map(chr, range(32, 127)), "\n"]
    words = models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>")
    made = Tokenizer(words)
    made.pre_tokenizer = pre_tokenizers.Split(Regex(".|\n"), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def test_template_arguments_are_passed_on():
    tokenizer = tiny_models.tokenizer("chatml")
    given = episode(tokenizer, [QUESTION], "Oslo", enable_thinking=False)
    thinks = tokenizer.decode(tokens_of(given, tokenizer))
    assert thinks.endswith("<|im_start|>assistant\n<think></think>Oslo")


def test_a_stop_token_that_is_text_is_read():
    tokenizer = tiny_models.tokenizer("chatml")
    for prompt, closing in (([QUESTION], "<|im_end|>\n"), ("Say", "")):
        given = episode(tokenizer, prompt, "Oslo", ".")
        for ids in (tokens_of(given, tokenizer), text_of(given, tokenizer, tokenizer)):
            assert tokenizer.decode(ids).endswith("Oslo." + closing)


def test_a_completion_without_words_is_read():
    tokenizer = tiny_models.tokenizer("chatml")
    for prompt in CONVERSATIONS.values():
        for end in ("<|im_end|>", None):
            given = episode(tokenizer, prompt, "", end)
            assert text_of(given, tokenizer, tokenizer) == tokens_of(given, tokenizer)


@pytest.mark.parametrize("length", [2, 9])  # cut, and ended
@pytest.mark.parametrize("kind", ["plain text that holds markers", "several turns"])
def test_ppo_gives_both_kinds_of_reward_models_the_same(kind, length):
    tokenizer = tiny_models.tokenizer("chatml")
    prompt = CONVERSATIONS[kind]
    policy = tiny_models.speaker(tokenizer, "\n", "Oslo yes.<|im_end|>")
    judge = tiny_models.judge()
    trainer = PPOTrainer(
        policy,
        [judge, (judge, tokenizer), letters],
        config(max_completion_length=length, temperature=0.1),
        [{"prompt": prompt}],
        processing_class=tokenizer,
    )
    trainer.train()
    row = trainer.completions[0]
    name = "reward/LlamaForSequenceClassification"
    ids = encode_prompt(tokenizer, prompt)
    ids += trainer.processing_class("Oslo yes.<|im_end|>")["input_ids"][:length]
    if row["ended"] and kind == "several turns":
        ids += tokenizer("\n")["input_ids"]
    ids = torch.tensor([ids])
    with torch.no_grad():
        expected = sequence_rewards(judge, ids, torch.ones_like(ids)).item()
    assert row["ended"] == (length == 9)
    assert row[name] == pytest.approx(expected, rel=1e-5)
    assert row[name + "#2"] == pytest.approx(expected, rel=1e-5)


def test_episodes_of_all_kinds_are_read_at_once():
    tokenizer = tiny_models.tokenizer("chatml")
    episodes = [
        episode(tokenizer, prompt, "Oslo", end)
        for end in ("<|im_end|>", None, "<|im_end|>")
        for prompt in CONVERSATIONS.values()
    ]
    together = as_text(episodes, tokenizer, tokenizer)
    assert together == [text_of(each, tokenizer, tokenizer) for each in episodes]
    assert together == as_tokens(episodes, tokenizer)


def test_an_encoder_s_separator_stands_behind_plain_text(tiny_tokenizer):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "say", "it", "peru"]
    encoder = Tokenizer(
        models.WordPiece(
            {word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"
        )
    )
    encoder.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encoder.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    own = PreTrainedTokenizerFast(
        tokenizer_object=encoder,
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
    prompt, completion = "say it", tiny_tokenizer(" peru")["input_ids"]
    for ended in (True, False):
        ids = completion + [tiny_tokenizer.eos_token_id] * ended
        prompt_ids = tiny_tokenizer(prompt)["input_ids"]
        spoken = Episode(prompt, prompt_ids, ids, ended, {})
        (row,) = as_text([spoken], tiny_tokenizer, own)
        assert row == [2, 4, 5, 6, 3]
