"""What holds for all tests: which ones are left out, and no network for those that are
not marked with it. And a tiny tokenizer and a tiny random model, made in a moment."""

import os
import socket
from unittest import mock

import psutil
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


# For minutes each, unless they are asked for by name.
LEFT_OUT = ("series", "browser", "roundtrip", "faults", "regressions")


def pytest_collection_modifyitems(config, items):
    """Leave out what takes minutes, unless it is asked for by its marker."""
    markers = [name for name in LEFT_OUT if name not in config.option.markexpr]
    left_out = [item for item in items if any(map(item.get_closest_marker, markers))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


# --- The network ----------------------------------------------------------------------


class Blocked(ConnectionError):
    """A test that is not marked ``network`` wanted to reach another machine."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Tests that are not marked reach this machine alone, and so do their fixtures.
    Kernels and clusters are on it. Only pip, a process of its own, may fetch the pinned
    data sources into a cache that lacks them."""
    if item.get_closest_marker("network"):
        return (yield)
    with mock.patch.object(socket.socket, "connect", _connect_here):
        return (yield)


_connect = socket.socket.connect
_HERE = {"localhost", "127.0.0.1", "::1", socket.gethostname()}
_HERE |= {a.address for own in psutil.net_if_addrs().values() for a in own}


def _connect_here(self, address):
    inet = self.family in (socket.AF_INET, socket.AF_INET6)
    if inet and self.type & socket.SOCK_STREAM and address[0] not in _HERE:
        raise Blocked(f"{address} is another machine: mark the test `network`")
    return _connect(self, address)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What fails only because a data source is neither in the cache nor to be had is
    skipped and says so, but where the network is required."""
    report = yield
    reason = _missing_source(call.excinfo and call.excinfo.value)
    if reason and os.environ.get("ALIGNLAB_NETWORK") != "required":
        report.outcome = "skipped"
        place = str(item.path), item.location[1] or 0
        report.longrepr = (*place, f"Skipped: {reason}")
    return report


def _missing_source(error) -> str:
    while error is not None:
        if "Cannot download the data source" in str(error):
            return "it needs the data sources: run `alignlab data pull`"
        error = error.__cause__
    return ""


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
