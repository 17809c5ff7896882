"""A tiny tokenizer and a tiny random model, made in a moment, for every test that needs
one."""

import pytest
import setuptools  # noqa: F401  before anything imports distutils, which it replaces

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SENTENCES = [
    "The capital of France is Paris. The capital of Norway is Oslo.",
    "The money of Japan is the yen, and the money of Peru is the sol.",
    "What is the capital of Kenya? Say it in one word.",
    "Is gold a metal? Yes. Its number is 79. Iron has number 26.",
]


def pytest_collection_modifyitems(config, items):
    """Leave out what runs whole notebooks, unless it is asked for by its marker."""
    for marker in ("series", "regressions"):
        left_out = [item for item in items if item.get_closest_marker(marker)]
        if left_out and marker not in config.option.markexpr:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker(marker)]


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Byte-level BPE with the special tokens and chat template of the shipped one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=True),
            pre_tokenizers.Digits(
                individual_digits=True
            ),  # after, or each gets a space
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=special[2:],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def tiny_model(tiny_tokenizer):
    """A random LlamaForCausalLM of about 50,000 parameters, fresh for each test."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.3,  # large, so that its replies vary from prompt to prompt
        pad_token_id=tiny_tokenizer.pad_token_id,
        eos_token_id=tiny_tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()
