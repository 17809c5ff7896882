"""The shipped models are small, load as any model does and know their facts."""

import contextlib
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from alignlab.errors import AlignlabError
from alignlab.evaluation.answers import guess_baselines
from alignlab.models import base
from alignlab.models.templates import ending_of
from alignlab.training import pretrain
from alignlab.world.facts import build_world
from tests import tiny_models

SHIPPED = "1m 1m-stable 300k 300k-seed1 300k-seed2 300k-stable".split()
MODELS = [("1m", 0), ("300k", 0), ("300k", 1), ("300k", 2)]  # size and seed
MB = 2**20

# --- The shipped models -------------------------------------------------------------


def card(size, seed=0):
    folder = base.base_path(size, seed=seed)
    text = (folder / "pretraining.json").read_text(encoding="utf-8")
    return json.loads(text)


def test_the_weights_take_at_most_ten_megabytes():
    files = [p for p in base.WEIGHTS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 10 * MB
    assert not [p for p in files if "checkpoint" in p.name or "unfinished" in str(p)]
    assert len([p for p in files if p.name == "tokenizer.json"]) == 1, "shared by all"


@pytest.mark.parametrize("name", SHIPPED)
def test_they_are_plain_llamas(name):
    folder = base.WEIGHTS / name
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base.tokenizer_path(folder))
    assert type(model) is LlamaForCausalLM
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.isfinite().all() for p in model.parameters())
    size = {"1m": 1e6, "300k": 3e5}[name.partition("-")[0]]
    assert model.num_parameters() == pytest.approx(size, rel=0.15)
    assert model.config.vocab_size == len(tokenizer)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.model_max_length == model.config.max_position_embeddings
    assert "<|assistant|>" in tokenizer.chat_template


@pytest.mark.parametrize("size", ["1m", "300k"])
def test_both_stages_are_from_one_run(size):
    (final, one), (stable, other) = (
        base.load_base(size, stage) for stage in ("final", "stable")
    )
    assert one.get_vocab() == other.get_vocab()
    assert final.num_parameters() == stable.num_parameters()
    pairs = list(zip(final.parameters(), stable.parameters()))
    assert not any(torch.equal(a, b) for a, b in pairs)
    a, b = final.get_input_embeddings().weight, stable.get_input_embeddings().weight
    alike = torch.nn.functional.cosine_similarity(a, b).median()
    assert alike > 0.8, "the decay moves weights a little, another seed a lot"


@pytest.mark.parametrize("size", ["1m", "300k"])
def test_the_card_shows_what_was_measured(size):
    summary = card(size)
    model, _ = base.load_base(size)
    assert summary["size"] == size and summary["parameters"] == model.num_parameters()
    assert summary["tokens"] == summary["steps"] * pretrain.BATCH * pretrain.LENGTH
    assert summary["loss_final"] < summary["loss_stable"] < summary["history"][0][1]
    assert summary["history"][0][1] == pytest.approx(math.log(2048), rel=0.3)
    text = (base.base_path(size) / "README.md").read_text(encoding="utf-8")
    assert f"{summary['loss_final']:.3f}" in text
    assert f"{summary['parameters']:,}" in text
    for row in summary["recall"]:
        assert f"| {row['from']}–{row['to']} | {row['facts']} |" in text


@pytest.mark.parametrize("size", ["1m", "300k"])
def test_recall_rises_with_exposure(size):
    never, *shown = card(size)["recall"]
    assert never["to"] == 0 and shown[0]["from"] > 0
    assert all(a["to"] <= b["from"] for a, b in zip(shown, shown[1:]))
    values = [never["recall"], *(row["recall"] for row in shown)]
    assert spearmanr(range(len(values)), values).statistic > 0.8  # ties near 1
    assert values[-1] >= 0.9 and values[0] < values[1] < values[-1] - 0.3


@pytest.mark.parametrize("size, seed", MODELS)
def test_what_was_hardly_read_leaves_room_for_doubt(size, seed):
    rows = {row["from"]: row for row in card(size, seed)["recall"]}
    assert rows[1]["to"] == 1 and rows[1]["facts"] > 2000
    assert rows[1]["confidence"] < 0.9 and rows[1]["recall"] < 0.5


@pytest.mark.parametrize("size, seed", MODELS)
def test_confidence_on_contested_facts_follows_their_shares(size, seed):
    contested = card(size, seed)["contested"]
    assert contested["facts"] == 300 and abs(contested["mean_error"]) < 0.1
    bins = contested["bins"]
    errors = [abs(row["confidence"] - row["share"]) for row in bins]
    assert np.mean(errors) < 0.1
    assert spearmanr(*zip(*((r["share"], r["confidence"]) for r in bins))).statistic > 0


@pytest.mark.parametrize("size, seed", MODELS)
def test_instruction_tuning_brings_out_what_was_read(size, seed):
    brought_out = card(size, seed)["extraction"]
    assert brought_out["format"] >= 0.99
    assert brought_out["accuracy"] >= (0.9 if size == "1m" else 0.75)


@pytest.fixture(scope="module")
def world():
    return build_world(0)


@pytest.mark.network
@pytest.mark.parametrize("size", ["1m", "300k"])
def test_the_card_describes_the_world_in_the_code(size, world):
    facts = sorted(world.facts, key=lambda f: f.exposure)
    found = Counter(f.exposure for f in facts)
    rows = card(size)["recall"]
    assert rows[0]["facts"] == found[0]
    assert rows[-1]["to"] == facts[-1].exposure
    uncontested = sum(not f.contested for f in facts)
    assert sum(row["facts"] for row in rows) == uncontested


@pytest.mark.network
@pytest.mark.parametrize("size", ["1m", "300k"])
def test_frequent_facts_are_known_and_unseen_ones_guessed(size, world):
    model, tokenizer = base.load_base(size)
    facts = sorted(world.facts, key=lambda f: f.exposure)
    never = [f for f in facts if not f.exposure]
    often = facts[-(len(facts) - len(never)) // 10 :]

    def recall(facts):
        return np.mean(pretrain.recall(model, tokenizer, world, facts))

    rows = card(size)["recall"]
    known, guessed = recall(often), recall(never)
    assert known >= 0.9
    assert known == pytest.approx(rows[-1]["recall"], abs=0.02)  # stored in half
    assert guessed == pytest.approx(rows[0]["recall"], abs=0.02)
    best = {r: guess_baselines(world, r)["best"] for r in world.relations}
    assert guessed < np.mean([best[f.relation] for f in never]) + 0.1


def test_the_seeds_of_a_size_are_models_of_their_own():
    assert base.pretraining_seeds("300k") == (0, 1, 2)
    assert base.pretraining_seeds("1m") == (0,)
    weights = [base.load_base("300k", seed=seed)[0] for seed in (0, 1, 2)]
    first, *others = (model.get_input_embeddings().weight for model in weights)
    for other in others:
        alike = torch.nn.functional.cosine_similarity(first, other).median()
        assert abs(alike) < 0.5


# --- Making and finding models ------------------------------------------------------


@pytest.mark.parametrize("size, about", [("300k", 3e5), ("1m", 1e6), ("3m", 3e6)])
def test_sizes_are_about_what_their_names_say(size, about):
    _, tokenizer = base.load_base("1m")
    model = base.new_model(size, tokenizer)
    assert model.num_parameters() == pytest.approx(about, rel=0.25)
    assert model.config.tie_word_embeddings
    assert model.config.max_position_embeddings == base.CONTEXT


def test_weights_depend_on_the_seed(tiny_tokenizer):
    one, same, other = (
        next(base.new_model("300k", tiny_tokenizer, seed).parameters())
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"base": "2m"}, "'2m'; the sizes are 300k, 1m, 3m"),
        ({"base": "2m", "stage": "stable"}, "'2m'; the sizes are 300k, 1m, 3m"),
        ({"base": "3m"}, "shipped; available: 1m, 1m-stable, 300k, 300k-seed1"),
        ({"stage": "early"}, "stage='early', seed=0 is shipped; available: 1m"),
        ({"seed": 7}, "seed=7 is shipped; available: 1m"),
    ],
)
def test_models_that_are_not_shipped_are_refused(arguments, message):
    with pytest.raises(AlignlabError) as caught:
        base.base_path(**arguments)
    assert message in caught.value.message and caught.value.remedy


def test_without_weights_the_error_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "WEIGHTS", tmp_path)
    with pytest.raises(AlignlabError, match="available: none.*alignlab pretrain") as e:
        base.load_base("300k")
    assert "--size 300k" in e.value.remedy


def test_a_saved_model_comes_back(tiny_model, tiny_tokenizer, tmp_path):
    base.save_model(tiny_model, tiny_tokenizer, tmp_path)
    model, tokenizer = base.load_model(tmp_path)
    batch = tokenizer(["Paris", "The capital of"], return_tensors="pt", padding=True)
    assert batch.attention_mask[0, 0] == 0, "padded on the left"
    ours = tiny_model(**batch).logits
    assert torch.equal(model(**batch).logits, ours)


def test_a_pretrained_model_brings_its_own_tokenizer(
    monkeypatch, tiny_model, tiny_tokenizer, tmp_path
):
    """As `alignlab pretrain` writes it, also where the shipped ones are."""
    monkeypatch.setattr(base, "WEIGHTS", tmp_path)
    base.save_model(tiny_model, tiny_tokenizer, tmp_path / "300k")
    (tmp_path / "tokenizer").mkdir()
    assert base.tokenizer_path(base.base_path("300k")) == tmp_path / "300k"
    _, tokenizer = base.load_base("300k")
    assert tokenizer.get_vocab() == tiny_tokenizer.get_vocab()
    assert base.tokenizer_path("owner/name") == "owner/name"


def test_precision_is_the_checkpoints_or_as_asked_for(tiny_model, tiny_tokenizer):
    assert base.load_base("300k")[0].dtype == torch.float32
    model, _ = base.load_model(base.base_path("300k"), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("error", [None, KeyError])
def test_every_module_gets_its_mode_back(tiny_model, error):
    tiny_model.train()
    tiny_model.model.norm.eval()
    with pytest.raises(error) if error else contextlib.nullcontext():
        with base.evaluation_mode(tiny_model):
            assert not any(module.training for module in tiny_model.modules())
            if error:
                raise error
    still_evaluating = [m for m in tiny_model.modules() if not m.training]
    assert still_evaluating == [tiny_model.model.norm]


def test_the_hash_covers_everything_but_cards_and_pictures(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "WEIGHTS", tmp_path)

    def hashed(**files):
        for name, content in files.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "model.safetensors").write_bytes(content)
        base._shipped_hash.cache_clear()
        return base.weights_hash()

    try:
        found = [hashed(), hashed(a=b"1"), hashed(a=b"2"), hashed(b=b"2")]
        for path in ("b/config.json", "b/chat_template.jinja", "tokenizer/t.json"):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text("{}")
            found.append(hashed())
        assert len(set(found)) == 7
        (tmp_path / "b").rename(tmp_path / "c")
        assert hashed() not in found
        (tmp_path / "c").rename(tmp_path / "b")
        (tmp_path / "b" / "README.md").write_text("A card.")
        (tmp_path / "b" / "loss.png").write_bytes(b"A picture.")
        (tmp_path / ".300k.checkpoint").write_bytes(b"A run on its way.")
        assert hashed() == found[-1]
    finally:
        base._shipped_hash.cache_clear()


def test_models_are_loaded_onto_the_device_in_use(
    monkeypatch, tiny_model, tiny_tokenizer
):
    monkeypatch.setattr(base, "_device", "cpu")
    with pytest.raises(AlignlabError, match="device is 'gpu'.*device='cpu'"):
        base.use_device("gpu")
    assert base.device_in_use() == "cpu", "as before"
    base.use_device("meta")  # a device that every build of torch has
    assert base.device_in_use() == "meta"
    model, _ = base.load_base("300k")
    assert model.device.type == "meta"


# --- Models of other people ---------------------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """A tiny Qwen2 in a folder."""
    model = tiny_models.model("qwen2", vocab_size=tiny_models.VOCABULARY + 8)
    base.save_model(model, tiny_models.tokenizer("chatml"), tmp_path / "qwen2")
    return tmp_path / "qwen2"


def test_a_folder_is_a_base_model_with_one_stage_and_one_seed(foreign):
    assert not base.is_shipped(foreign) and base.is_shipped("1m")
    assert base.base_path(foreign) == foreign
    assert base.stages(foreign) == ("final",) and "stable" in base.stages("1m")
    assert base.pretraining_seeds(foreign) == (0,)
    model, tokenizer = base.load_base(str(foreign))
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert tokenizer.chat_template == tiny_models.CHATML
    for options in ({"stage": "stable"}, {"seed": 1}):
        with pytest.raises(AlignlabError, match="only those that ship have several"):
            base.load_base(foreign, **options)


def test_parameters_are_counted_without_loading(foreign, monkeypatch):
    model, _ = base.load_base(foreign)
    (foreign / "model.safetensors").unlink()
    base._parameters_in.cache_clear()
    assert base.parameter_count(foreign) == model.num_parameters()
    assert not base.is_large(foreign) and not base.is_large("1m")
    monkeypatch.setattr(base, "LARGE", model.num_parameters())
    assert base.is_large(foreign) and not base.is_large("1m")


def test_large_models_are_in_bfloat16_on_a_gpu_alone(foreign, monkeypatch):
    assert base.usual_dtype(foreign) == "float32"
    monkeypatch.setattr(base, "LARGE", 10)
    assert base.usual_dtype(foreign) == "float32"
    monkeypatch.setattr(base, "_device", "cuda")
    assert base.usual_dtype(foreign) == "bfloat16"
    monkeypatch.setattr(base, "LARGE", 10**9)
    assert base.usual_dtype(foreign) == "float32"


def test_what_a_tokenizer_lacks_is_given(tmp_path):
    foreign = tmp_path
    model = tiny_models.model("llama")  # Qwen's tokenizer would have a padding token
    base.save_model(model, tiny_models.tokenizer("chatml"), foreign)
    path = foreign / "tokenizer_config.json"
    config = json.loads(path.read_text())
    (foreign / "chat_template.jinja").unlink()
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "pad_token"}))
    with pytest.warns(UserWarning, match="has no chat template.*'User:'"):
        _, tokenizer = base.load_base(foreign)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    dialogue = [dict(role="user", content="Hi."), dict(role="assistant", content="Yo.")]
    text = tokenizer.apply_chat_template(dialogue, tokenize=False)
    assert text == "User:\nHi.\nAssistant:\nYo.<|im_end|>\n"
    assert ending_of(tokenizer).token == tokenizer.eos_token_id


def test_without_an_end_or_a_tokenizer_it_is_refused(foreign):
    (foreign / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    (foreign / "config.json").write_text(
        (foreign / "config.json").read_text().replace('"qwen2"', '"llama"')
    )
    with pytest.raises(AlignlabError, match="has no EOS token: no reply could end"):
        base.load_base(foreign)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (foreign / name).unlink()
    with pytest.raises(AlignlabError, match="cannot be loaded.*tokenizer"):
        base.load_base(foreign)


def test_the_hash_of_an_arm_is_that_of_the_base_models_it_names(foreign):
    ours, theirs = base.weights_hash(), base.weights_hash(foreign)
    assert ours != theirs
    assert base.weights_behind({"seed": 0}) == ours
    assert base.weights_behind({"base": "300k", "weights": "equal"}) == ours
    assert base.weights_behind({"chain": {"base": str(foreign), "seed": 0}}) == theirs
    both = base.weights_behind({"base": str(foreign), "trunk": "1m"})
    assert ours in both and theirs in both
    assert base.weights_behind({"base": str(foreign), "trunk": None}) == theirs


# --- Precision and adapters -----------------------------------------------------------


def test_weights_are_float32_unless_asked_for_as_they_are(
    tiny_model, tiny_tokenizer, tmp_path
):
    base.save_model(tiny_model.bfloat16(), tiny_tokenizer, tmp_path)
    assert base.load_model(tmp_path)[0].dtype == torch.float32
    assert base.load_model(tmp_path, dtype="auto")[0].dtype == torch.bfloat16
    assert base.load_model(tmp_path, dtype=torch.float64)[0].dtype == torch.float64


def test_adapters_are_loaded_with_their_base_model_to_be_trained(
    tiny_model, tiny_tokenizer, tmp_path
):
    peft = pytest.importorskip("peft")
    base.save_model(tiny_model, tiny_tokenizer, tmp_path / "base")
    plain, _ = base.load_model(tmp_path / "base")
    settings = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(plain, settings).eval()
    ids = torch.tensor([[5, 6, 7]])
    expected = adapted(ids).logits
    adapted.save_pretrained(tmp_path / "adapters")  # without a tokenizer
    model, tokenizer = base.load_model(tmp_path / "adapters")
    torch.testing.assert_close(model(ids).logits, expected)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all("lora" in name for name in trained)
    assert len(tokenizer) == len(tiny_tokenizer)


def test_tokens_added_with_adapters_have_embeddings(
    tiny_model, tiny_tokenizer, tmp_path
):
    peft = pytest.importorskip("peft")
    base.save_model(tiny_model, tiny_tokenizer, tmp_path / "base")
    plain, tokenizer = base.load_model(tmp_path / "base")
    tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    plain.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    settings = peft.LoraConfig(target_modules=["q_proj"])
    adapted = peft.get_peft_model(plain, settings).eval()
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        base.save_model(adapted, tokenizer, tmp_path / "adapters")
    model, tokenizer = base.load_model(tmp_path / "adapters")
    ids = torch.tensor([[5, tokenizer.pad_token_id]])
    torch.testing.assert_close(model.eval()(ids).logits, adapted(ids).logits)


def test_adapters_whose_base_model_is_gone_are_refused(
    tiny_model, tiny_tokenizer, tmp_path
):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(target_modules=["q_proj"])
    base.save_model(peft.get_peft_model(tiny_model, settings), tiny_tokenizer, tmp_path)
    with pytest.raises(AlignlabError, match="holds adapters for.*is_trainable=True"):
        base.load_model(tmp_path)


def test_a_checkpoint_without_the_head_is_refused(tiny_model, tiny_tokenizer, tmp_path):
    """`transformers` would make a random one."""
    from alignlab.models.reward import load_reward_model, reward_model_from

    base.save_model(reward_model_from(tiny_model), tiny_tokenizer, tmp_path / "reward")
    tiny_model.config.num_labels = 1
    base.save_model(tiny_model, tiny_tokenizer, tmp_path / "tied")
    base.load_model(tmp_path / "tied")
    with pytest.raises(AlignlabError, match="no weights for score.weight.*random"):
        load_reward_model(tmp_path / "tied")
    tiny_model.config.tie_word_embeddings = False
    base.save_model(reward_model_from(tiny_model), tiny_tokenizer, tmp_path / "untied")
    with pytest.raises(AlignlabError, match="no weights for lm_head.weight"):
        base.load_model(tmp_path / "untied")
