"""Small models of several architectures."""

import pytest
import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

SMALL = dict(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)

MIXED = dict(
    head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
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
    image_token_index=59,
    boi_token_index=58,
    eoi_token_index=57,
)


def lora(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(init_lora_weights=False))


KINDS = {
    "llama": lambda tiny: tiny,
    "gpt2": lambda tiny: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=60,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    ),
    # Scales its logits after the output layer, which a short cut could miss.
    "granite": lambda tiny: GraniteForCausalLM(
        GraniteConfig(**SMALL, logits_scaling=4.0)
    ),
    "qwen3": lambda tiny: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),
    "eager": lambda tiny: Qwen3ForCausalLM(
        Qwen3Config(**SMALL, head_dim=8, attn_implementation="eager")
    ),
    # Attends to a window of four tokens.
    "window": lambda tiny: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),
    # Has no keys and values.
    "recurrent": lambda tiny: MambaForCausalLM(
        MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2)
    ),
    "lora": lora,
    "gpt neox": lambda tiny: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)),
    # Its output layer reads 8 numbers, not hidden_size.
    "opt": lambda tiny: OPTForCausalLM(
        OPTConfig(
            vocab_size=60,
            hidden_size=16,
            ffn_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=8,
            dropout=0.0,
            do_layer_norm_before=False,
        )
    ),
    "gemma3": lambda tiny: Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, **MIXED)),
    "gemma3 multimodal": lambda tiny: Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=SMALL | MIXED, **TINY_IMAGES)
    ),
    # Takes no positions: distance lowers attention.
    "bloom": lambda tiny: BloomForCausalLM(
        BloomConfig(vocab_size=60, hidden_size=16, n_layer=2, n_head=2)
    ),
    # Takes no positions, and counts padding.
    "bart": lambda tiny: BartForCausalLM(
        BartConfig(
            vocab_size=60,
            d_model=16,
            dropout=0.0,
            decoder_layers=2,
            decoder_attention_heads=2,
            decoder_ffn_dim=16,
            is_decoder=True,
            is_encoder_decoder=False,
        )
    ),
    "lfm2": lambda tiny: Lfm2ForCausalLM(
        Lfm2Config(**SMALL, layer_types=["conv", "full_attention"])
    ),
    "jamba": lambda tiny: JambaForCausalLM(
        JambaConfig(
            **SMALL,
            num_experts=2,
            num_experts_per_tok=1,
            mamba_d_state=4,
            mamba_dt_rank=4,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
        )
    ),
    # Takes no positions and heeds no mask.
    "rwkv": lambda tiny: RwkvForCausalLM(
        RwkvConfig(
            vocab_size=60,
            hidden_size=16,
            num_hidden_layers=2,
            attention_hidden_size=16,
            context_length=64,
        )
    ),
    # Keeps its state in its layers, and reads padding.
    "recurrent gemma": lambda tiny: RecurrentGemmaForCausalLM(
        RecurrentGemmaConfig(
            **SMALL,
            lru_width=16,
            attention_window_size=8,
            block_types=["recurrent", "attention"],
        )
    ),
}
OWN_CACHE = ["recurrent", "rwkv", "bloom", "bart", "lfm2", "jamba", "recurrent gemma"]


@pytest.fixture
def model_of(tiny_model):
    """A function from a name in ``KINDS`` to a random model whose logits differ
    clearly."""

    def build(kind: str):
        torch.manual_seed(0)
        model = KINDS[kind](tiny_model).double().eval()
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(20)
        return model

    return build
