"""Random models of a dozen architectures, a model that says what it is told, and
tokenizers of the kinds that people bring. All are made in a moment, offline.

They share one vocabulary, so that any model goes with any tokenizer.
"""

import copy
import functools

import torch
import transformers

SENTENCES = [
    "The capital of France is Paris. The capital of Norway is Oslo.",
    "What is the capital of Kenya? Say it in one word.",
    "Is gold a metal? Yes. The money of Peru is the sol.",
    "user assistant system User: Assistant: The answer is",
]
TURNS = ["<|user|>", "<|assistant|>", "<|system|>", "<|im_start|>", "<|head|>"]
SPECIAL = ["<|pad|>", "<|end|>", *TURNS, "<|im_end|>", "<|eot|>", "<|text_end|>"]
THINK = ["<think>", "</think>"]  # in the vocabulary, and special for the tokenizer

# --- Tokenizers: what ends a turn, and what the chat template writes ------------------

PLAIN = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>"
    "{% endif %}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}<|head|>{{ m['role'] }}<|head|>{{ m['content'] }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|head|>{% endif %}"
)
ENDLESS = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
STYLES = {  # EOS token and chat template
    "plain": ("<|end|>", PLAIN),
    "chatml": ("<|im_end|>", CHATML),  # writes a line break behind its end of turn
    "llama3": ("<|text_end|>", LLAMA3),  # ends turns with another token than EOS
    "endless": ("<|end|>", ENDLESS),  # never writes an end
}


@functools.cache
def _bpe():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIAL + THINK,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    return bpe


def tokenizer(style: str = "plain", appends_eos: bool = False):
    """A tokenizer with the chat template of that style.

    Args:
        appends_eos: it puts EOS behind every text, as some do for training.
    """
    from tokenizers.processors import TemplateProcessing

    eos, template = STYLES[style]
    bpe = copy.deepcopy(_bpe())
    if appends_eos:
        bpe.post_processor = TemplateProcessing(
            single=f"$A {eos}", special_tokens=[(eos, bpe.token_to_id(eos))]
        )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token=eos,
        additional_special_tokens=[t for t in SPECIAL[1:] if t != eos] + THINK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = template
    return made


VOCABULARY = 340

# --- Models ---------------------------------------------------------------------------

SMALL = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)
WINDOWED = dict(
    head_dim=8,
    sliding_window=4,
    layer_types=["sliding_attention", "full_attention"],
    tie_word_embeddings=False,  # or it mostly says again what it has read
)
TINY_IMAGES = dict(
    vision_config=dict(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    ),
    mm_tokens_per_image=4,
    image_token_index=VOCABULARY - 1,
    boi_token_index=VOCABULARY - 2,
    eoi_token_index=VOCABULARY - 3,
)
NO_TOKENS = dict(bos_token_id=None, eos_token_id=None, pad_token_id=0)
ARCHITECTURES = {  # class of the causal LM, class of its config, and its sizes
    "llama": ("LlamaForCausalLM", "LlamaConfig", SMALL),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        dict(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128)
        | dict(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5),
    ),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        SMALL | dict(ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False),
    ),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", SMALL),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", SMALL | dict(head_dim=8)),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", SMALL | WINDOWED),
    "gemma3 multimodal": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        dict(text_config=SMALL | WINDOWED | NO_TOKENS, **TINY_IMAGES)
        | dict(tie_word_embeddings=False),
    ),
    "gpt neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
    ),
    # Hybrids: some layers attend, others keep a state.
    "lfm2": (
        "Lfm2ForCausalLM",
        "Lfm2Config",
        SMALL | dict(layer_types=["conv", "full_attention"]),
    ),
    "jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        SMALL
        | dict(num_experts=2, num_experts_per_tok=1, mamba_d_state=4, mamba_dt_rank=4)
        | dict(attn_layer_period=2, attn_layer_offset=1)
        | dict(expert_layer_period=2, expert_layer_offset=1),
    ),
    "recurrent gemma": (
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        SMALL | dict(num_hidden_layers=3, lru_width=32, attention_window_size=8),
    ),
}


def model(name: str = "llama", seed: int = 0, **sizes):
    """A random causal LM in eval mode whose greedy replies vary from prompt to prompt.

    Args:
        name: a key of ``ARCHITECTURES``.
        sizes: entries of its config to change.
    """
    kind, config, own = ARCHITECTURES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, config)(**NO_TOKENS | own | sizes)
    made = getattr(transformers, kind)(config).eval()
    made.generation_config.eos_token_id = None
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:  # larger than is usual, or all replies are alike
                parameter.mul_(8)
    return made


def speaker(tokenizer, prompt_ends_with: str, says: str):
    """A Llama that always says the same: behind the last token of
    ``prompt_ends_with`` the tokens of ``says``, each of which may occur only once.

    Its layers add nothing, so that the last token alone decides about the next.
    """
    last = tokenizer(prompt_ends_with, add_special_tokens=False)["input_ids"][-1]
    script = [last, *tokenizer(says, add_special_tokens=False)["input_ids"]]
    assert len(set(script)) == len(script), "a token occurs twice"
    sizes = dict(hidden_size=VOCABULARY, intermediate_size=4, num_hidden_layers=1)
    sizes |= dict(num_attention_heads=1, num_key_value_heads=1, head_dim=4)
    made = model("llama", **sizes)
    with torch.no_grad():
        layer = made.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        made.model.embed_tokens.weight.copy_(torch.eye(VOCABULARY))
        made.lm_head.weight.zero_()
        for token, following in zip(script, script[1:]):
            made.lm_head.weight[following, token] = 3.0  # about 55 nats
    return made


# --- Classifiers ----------------------------------------------------------------------

ENCODERS = {
    "bert": ("BertForSequenceClassification", "BertConfig"),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig"),
    "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig"),
    "deberta": ("DebertaV2ForSequenceClassification", "DebertaV2Config"),
}


def classifier(name: str, seed: int = 0):
    """A random encoder with one label, in eval mode."""
    kind, config = ENCODERS[name]
    torch.manual_seed(seed)
    sizes = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    if name == "distilbert":
        sizes = dict(vocab_size=VOCABULARY, dim=32, hidden_dim=48, n_layers=2)
        sizes |= dict(n_heads=4, max_position_embeddings=128)
    config = getattr(transformers, config)(**sizes, num_labels=1, pad_token_id=0)
    made = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return made


def judge(name: str = "llama", seed: int = 1, size: float = 20.0):
    """A random reward model with the trunk of :func:`model`."""
    from alignlab.models.reward import reward_model_from

    made = reward_model_from(model(name, seed), seed)
    with torch.no_grad():
        made.score.weight.mul_(size)
    return made.eval()


# --- A base model as people keep one in a folder --------------------------------------

QWEN_TURNS = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen2_folder(folder, texts, seed: int = 0):
    """Write a random model to a folder, like Qwen2 in all but its size: byte-level BPE,
    ChatML with a system prompt of its own, EOS that ends turns beside another token for
    padding, no BOS token, and more embeddings than tokens. Returns the folder.

    Args:
        texts: to learn the vocabulary of 1,000 tokens from.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    made = transformers.Qwen2TokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=None,
        bos_token=None,
    )
    made.chat_template = QWEN_TURNS
    torch.manual_seed(seed)
    config = transformers.Qwen2Config(
        **SMALL | dict(vocab_size=1024, max_position_embeddings=1024),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
