"""Our losses against TRL's, on the same batch, template and model, and our preference
losses on random batches.

Where a definition differs, the test says so and holds ours to what TRL has instead.
"""

import copy
from types import SimpleNamespace

import pytest
import torch

from alignlab.models.pairs import EncodedPair, pack, pair_log_probs
from alignlab.models.reward import reward_model_from
from alignlab.objectives import dpo_loss, orpo_loss, sft_loss, simpo_loss
from alignlab.training.dpo import preference_step, train_dpo
from alignlab.training.kto import kto_step
from alignlab.training.sft import collate, encode
from alignlab.training.trl_parity import (
    TRL_NAMES,
    compare_dpo_losses,
    compare_reward_losses,
    compare_sft_losses,
)

EXAMPLES = [
    {"prompt": "What is the capital of France?", "completion": "Paris"},
    {"prompt": "Is gold a metal?", "completion": "Yes. Its number is 79."},
    {
        "prompt": [
            {"role": "system", "content": "Say it in one word."},
            {"role": "user", "content": "The capital of Norway?"},
        ],
        "completion": "Oslo",
    },
]
REWARD_PAIRS = [
    {"prompt": "Is gold a metal?", "chosen": "Yes.", "rejected": "The yen is money."},
    {"prompt": "The number of iron?", "chosen": "26", "rejected": ""},
    {
        "prompt": EXAMPLES[2]["prompt"],
        "chosen": "Oslo",
        "rejected": [{"role": "assistant", "content": "The capital is Oslo."}],
    },
]
PAIRS = [
    {"prompt": "The capital of France?", "chosen": "Paris", "rejected": "Oslo."},
    {"prompt": "Is gold a metal?", "chosen": "Yes. It is.", "rejected": "No"},
    {
        "prompt": [
            {"role": "system", "content": "Say it in one word."},
            {"role": "user", "content": "The capital of Norway?"},
        ],
        "chosen": [{"role": "assistant", "content": "Oslo"}],
        "rejected": "The money of Peru.",
    },
    {"prompt": "The number of iron?", "chosen": "26", "rejected": "Iron is 79."},
]
BETA, RATE = 0.3, 0.2


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# --- SFT and reward models ------------------------------------------------------------


def test_trl_starts_at_the_same_loss(tiny_model, tiny_tokenizer):
    before = [p.clone() for p in tiny_model.parameters()]
    batch = collate(encode(tiny_tokenizer, EXAMPLES), tiny_tokenizer.pad_token_id)
    logits = tiny_model(batch["input_ids"], batch["attention_mask"]).logits
    ours = sft_loss(logits, batch["input_ids"], batch["mask"]).item()
    both = compare_sft_losses(tiny_model, tiny_tokenizer, EXAMPLES)
    assert both == pytest.approx((ours, ours), abs=1e-5)
    for p, old in zip(tiny_model.parameters(), before, strict=True):
        assert torch.equal(p, old)


@pytest.mark.parametrize("coefficient", [0.0, 0.5])
@pytest.mark.parametrize("with_margin", [False, True])
def test_trl_starts_at_the_same_reward_loss(
    tiny_model, tiny_tokenizer, coefficient, with_margin
):
    model = reward_model_from(tiny_model)
    torch.nn.init.normal_(
        model.score.weight, generator=torch.Generator().manual_seed(1)
    )
    before = [p.clone() for p in model.parameters()]
    margins = [1.0, 0.0, 2.5] if with_margin else 3 * [0.0]
    pairs = [
        pair | ({"margin": margin} if with_margin else {})
        for pair, margin in zip(REWARD_PAIRS, margins, strict=True)
    ]
    ours, theirs = compare_reward_losses(model, tiny_tokenizer, pairs, coefficient)
    assert theirs == pytest.approx(ours, abs=1e-5)
    plain, _ = compare_reward_losses(model, tiny_tokenizer, REWARD_PAIRS)
    assert (abs(ours - plain) > 0.1) == (with_margin or coefficient > 0)
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)


# --- losses of pairs with a reference -------------------------------------------------


@pytest.fixture(scope="module")
def moved():
    def elsewhere(model, by=0.02):
        other = copy.deepcopy(model)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(by * torch.randn_like(parameter))
        return other

    return elsewhere


def trainer_of(kind, policy, reference, tokenizer, rows, folder):
    """TRL's trainer, ready to be asked for the loss of any batch."""
    import trl
    from datasets import Dataset

    settings = getattr(trl, f"{kind}Config")(
        output_dir=str(folder),
        beta=BETA,
        per_device_train_batch_size=4,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    return getattr(trl, f"{kind}Trainer")(
        policy,
        reference,
        settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def messages(role, text):
    return [{"role": role, "content": text}]


CHATS = [
    {
        "prompt": messages("user", pair["prompt"]),
        "chosen": messages("assistant", pair["chosen"]),
        "rejected": messages("assistant", pair["rejected"]),
    }
    for pair in PAIRS[:2]
]


def random_pairs(count, seed):
    """Prompts with two completions of unequal lengths, as token ids."""
    torch.manual_seed(seed)
    return [
        EncodedPair(
            *(torch.randint(5, 300, (n,)).tolist() for n in torch.randint(1, 8, (3,)))
        )
        for _ in range(count)
    ]


def in_trls_form(pairs, side):
    """A side of the pairs as TRL's collators lay it out: padded rows and two masks."""
    rows = [(*pair[0], *pair[side]) for pair in pairs]
    ids, real = torch.zeros(2, len(rows), 14, dtype=torch.long).unbind()
    completion = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        real[i, : len(row)] = 1
        completion[i, len(pairs[i][0]) : len(row)] = 1
    names = ("input_ids", "attention_mask", "completion_mask")
    return dict(zip(names, (ids, real, completion), strict=True))


@pytest.fixture
def dpo(tiny_model, tiny_tokenizer, moved, tmp_path):
    """The policy, the reference, and TRL's trainer of copies of both."""
    policy = moved(tiny_model)
    trainer = trainer_of(
        "DPO",
        copy.deepcopy(policy),
        copy.deepcopy(tiny_model),
        tiny_tokenizer,
        CHATS,
        tmp_path,
    )
    return policy, tiny_model, trainer


def both(dpo, theirs, ours, seed, rate=0.0, pairs=6):
    """Losses and gradients of one random batch, TRL's and ours."""
    policy, reference, trainer = dpo
    examples = random_pairs(pairs, seed)
    sides = [in_trls_form(examples, side) for side in (1, 2)]
    batch = {name: torch.cat([side[name] for side in sides]) for name in sides[0]}
    trainer.loss_types, trainer.loss_weights = [theirs], [1.0]
    trainer.label_smoothing = rate
    their_loss = trainer._compute_loss(trainer.model, batch, False)

    packed = pack(examples, pad_token_id=0)
    with torch.no_grad():
        fixed = pair_log_probs(reference, packed)
    columns = dict(zip(("ref_chosen", "ref_rejected"), fixed, strict=True))
    options = {"label_smoothing": rate} if rate else {}
    our_loss, _ = preference_step(policy, packed | columns, ours, BETA, **options)
    gradients = [
        torch.autograd.grad(loss, list(model.parameters()))
        for loss, model in ((their_loss, trainer.model), (our_loss, policy))
    ]
    return their_loss.item(), our_loss.item(), gradients


def agree(theirs, ours, gradients):
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    scale = max(gradient.abs().max() for gradient in gradients[0])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("ours", sorted(TRL_NAMES))
def test_losses_and_gradients_agree_on_random_batches(dpo, ours):
    rate = RATE if ours == "robust" else 0.0
    values = set()
    for seed in range(3):
        found = both(dpo, TRL_NAMES[ours], ours, seed, rate)
        agree(*found)
        values.add(round(found[0], 3))
    assert len(values) == 3  # batches that say something


def test_trls_ipo_is_not_the_papers(dpo):
    theirs, ours, _ = both(dpo, "ipo", "ipo", 0)
    assert abs(theirs - ours) > 0.1 * theirs


def test_trls_sigmoid_ignores_the_smoothing_that_acts_in_ours(dpo):
    theirs, ours, _ = both(dpo, "sigmoid", "sigmoid", 0, RATE)
    plain, same, _ = both(dpo, "sigmoid", "sigmoid", 0)
    assert theirs == plain == pytest.approx(same, abs=1e-5)
    assert abs(ours - theirs) > 1e-3


def test_ours_smoothed_is_trls_aot_unpaired_on_one_pair(dpo):
    """That loss still has the smoothing; on a single pair there is nothing to sort."""
    for seed in range(3):
        agree(*both(dpo, "aot_unpaired", "sigmoid", seed, RATE, pairs=1))


# --- losses without pairs or without a reference --------------------------------------


def test_kto_agrees_on_random_batches(tiny_model, tiny_tokenizer, moved, tmp_path):
    rows = [
        {"prompt": chat["prompt"], "completion": chat[side], "label": side == "chosen"}
        for side in ("chosen", "rejected")
        for chat in CHATS
    ]
    policy = moved(tiny_model)
    trainer = trainer_of(
        "KTO",
        copy.deepcopy(policy),
        copy.deepcopy(tiny_model),
        tiny_tokenizer,
        rows,
        tmp_path,
    )
    trainer.desirable_weight, trainer.undesirable_weight = 1.3, 0.7
    for seed in range(3):
        examples = random_pairs(6, seed)
        label = torch.arange(6) % 3 == 0
        mismatched = in_trls_form(examples, 2)
        batch = in_trls_form(examples, 1) | {"label": label}
        batch |= {f"KL_{name}": rows for name, rows in mismatched.items()}
        theirs = trainer._compute_loss(trainer.model, batch, False)
        packed = pack(examples, pad_token_id=0)
        with torch.no_grad():
            ref, other = pair_log_probs(tiny_model, packed)
        columns = {"ref": ref, "ref_mismatched": other, "desirable": label}
        ours, _ = kto_step(policy, packed | columns, BETA, 1.3, 0.7)
        gradients = [
            torch.autograd.grad(loss, list(model.parameters()))
            for loss, model in ((theirs, trainer.model), (ours, policy))
        ]
        agree(theirs.item(), ours.item(), gradients)


def test_kto_pairs_prompts_with_others_completions_as_trl_does(
    tiny_model, tiny_tokenizer, moved, tmp_path
):
    policy = moved(tiny_model)
    trainer = trainer_of(
        "KTO",
        copy.deepcopy(policy),
        copy.deepcopy(tiny_model),
        tiny_tokenizer,
        CHATS,
        tmp_path,
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer._compute_loss(trainer.model, inputs, False).item()
    history = train_dpo(
        policy,
        tiny_tokenizer,
        CHATS,
        loss_type="kto",
        beta=BETA,
        reference=tiny_model,
        steps=1,
        learning_rate=1e-3,
        progress=False,
    )
    assert inputs["label"].tolist() == [True, True, False, False]
    assert history[0]["loss"] == pytest.approx(theirs, abs=1e-5)


def means(seed):
    torch.manual_seed(seed)
    return -4 * torch.rand(2, 8) - 0.01


def stand_in(**settings):
    """What a method of TRL's trainers reads off its trainer."""
    return SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **settings)


def test_orpos_preference_term_is_trls():
    """TRL's likelihood runs over prompt and completion, ours over the completion: it is
    the other term, which is the log-probability given."""
    from trl.experimental.orpo import ORPOTrainer

    for seed in range(3):
        chosen, rejected = means(seed)
        theirs = -ORPOTrainer.odds_ratio_loss(stand_in(beta=BETA), chosen, rejected)[0]
        ours = orpo_loss(chosen, rejected, BETA) + chosen
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kind, rate", [("simpo", 0.0), ("sigmoid", RATE), ("ipo", 0.0)]
)
def test_simpo_and_without_a_reference_dpo_are_those_of_trls_cpo(kind, rate):
    from trl.experimental.cpo import CPOTrainer

    settings = dict(beta=BETA, label_smoothing=rate, loss_type=kind, alpha=0.0)
    trainer = stand_in(simpo_gamma=0.7, **settings)
    for seed in range(3):
        chosen, rejected = means(seed)
        theirs = CPOTrainer.cpo_loss(trainer, chosen, rejected)[0]
        if kind == "simpo":
            ours = simpo_loss(chosen, rejected, BETA, 0.7)
        else:
            zero = torch.zeros(8)
            ours = dpo_loss(chosen, rejected, zero, zero, BETA, kind, rate)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


# --- the whole way --------------------------------------------------------------------


def test_trls_trainer_starts_at_the_same_loss(tiny_model, tiny_tokenizer, moved):
    policy = moved(tiny_model)
    before = [p.clone() for p in policy.parameters()]
    ours, theirs = compare_dpo_losses(
        policy, tiny_tokenizer, PAIRS, tiny_model, "ipo_norm", BETA
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert abs(ours - (0 - 1 / (2 * BETA)) ** 2) > 1e-3  # not what a margin of 0 costs
    for p, old in zip(policy.parameters(), before, strict=True):
        assert torch.equal(p, old)
    with pytest.raises(ValueError, match="'dpop'; TRL has one of"):
        compare_dpo_losses(policy, tiny_tokenizer, PAIRS, tiny_model, "dpop")
