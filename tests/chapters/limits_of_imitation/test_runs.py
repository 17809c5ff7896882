"""The arms of notebook 02: fair controls, no leaks, replies read rightly."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from alignlab.chapters.limits_of_imitation import (
    hallucination,
    narrow_data,
    real_refusals,
)
from alignlab.chapters.limits_of_imitation import safety_tuning as tuning
from alignlab.models.sampler import Completion, complete
from alignlab.world import safety, tasks
from alignlab.world.gold import ADMISSIONS


def keys(examples):
    return {(e.fact.subject, e.fact.relation) for e in examples}


# --- Facts ------------------------------------------------------------------------


def test_training_and_test_questions_share_no_subject():
    train, test = hallucination.three_quarters()
    assert not train & test
    assert train | test == set(tasks.default_world().subjects())
    assert len(train) == pytest.approx(3 * len(test), rel=0.03)
    for seed in (0, 1):
        known, unknown = hallucination.training_facts(208, 0.5, seed)
        assert {e.fact.subject for e in known + unknown} <= train
    asked = hallucination.test_questions(150)
    assert {e.fact.subject for some in asked.values() for e in some} <= test


def test_a_share_of_the_facts_was_never_shown_and_each_is_there_once():
    for share in (0.0, 0.25, 1.0):
        known, unknown = hallucination.training_facts(208, share, seed=3)
        assert (len(known), len(unknown)) == (208 * (1 - share), 208 * share)
        assert all(e.fact.known for e in known)
        assert not any(e.fact.exposure for e in unknown)
        assert len(keys(known + unknown)) == 208
    asked = hallucination.test_questions(150)
    assert all(e.fact.known for e in asked["known"]) and len(asked["known"]) == 150
    assert all(e.fact.exposure and not e.fact.known for e in asked["rare"])
    assert not any(e.fact.exposure for e in asked["never"])


def test_other_labels_change_the_replies_and_nothing_else():
    _, true = hallucination.training_facts(40, 0.5, 0)
    for labels in ("admission", "first", "second"):
        _, other = hallucination.training_facts(40, 0.5, 0, labels)
        assert [e.prompt for e in other] == [e.prompt for e in true]
        assert [e.completion for e in other] != [e.completion for e in true]
        for example in other:
            if labels == "admission":
                assert example.completion == ADMISSIONS[0]
            else:
                text = example.completion
                side = hallucination.half_of(example.fact, text)
                assert side == float(labels == "first")
    with pytest.raises(ValueError, match="labels is 'idk'"):
        hallucination.relabel(true, "idk", 0)


def test_more_facts_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="1000 facts of kind 'never', and there are"):
        hallucination.training_facts(1000, 1.0, 0)


def test_halves_of_answers_have_none_in_common_and_nearly_as_many_facts():
    for relation in tasks.default_world().relations:
        one, other = hallucination.answer_halves(relation)
        assert one and other and not one.keys() & other.keys()
        largest = max(max(one.values()), max(other.values()))
        assert abs(one.total() - other.total()) <= largest


def test_confidence_is_the_product_of_the_tokens_probabilities(
    tiny_model, tiny_tokenizer
):
    prompts = ["What is the capital of Kenya?", "Is gold a metal?", "Oslo."]
    replies = complete(tiny_model, tiny_tokenizer, prompts, 5)
    found = hallucination.confidence(tiny_model, tiny_tokenizer, prompts, replies)
    for prompt, reply, value in zip(prompts, replies, found, strict=True):
        chat = [{"role": "user", "content": prompt}]
        text = tiny_tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        product = 1.0
        for token in reply.tokens:
            logits = tiny_model(torch.tensor([ids])).logits[0, -1]
            product *= logits.softmax(-1)[token].item()
            ids.append(token)
        assert value == pytest.approx(product, rel=1e-3)


def test_a_look_measures_each_kind_apart(monkeypatch):
    asked = {"known_fit": [], **hallucination.test_questions(2)}
    kinds = ("known", "rare", "never")
    replies = [
        *[e.answers[0] + "." for e in asked["known"]],
        asked["rare"][0].answers[0],
        "Nonsense.",
        *["I do not know."] * 2,
    ]
    sure = np.array([0.5, 1.0, 0.25, 0.75, 0.1, 0.3])
    said = [Completion(text, [], True) for text in replies]
    monkeypatch.setattr(hallucination, "complete", lambda *a: said)
    monkeypatch.setattr(hallucination, "confidence", lambda *a: sure)
    measured, shown = hallucination.look(None, None, asked)
    assert [measured[k] for k in kinds] == [1.0, 0.5, 0.0]
    assert [measured[f"{k}_admitted"] for k in kinds] == [0, 0, 1]
    confidence = [measured[f"{k}_confidence"] for k in kinds]
    assert confidence == pytest.approx([0.75, 0.5, 0.2])
    wrong = [measured[f"{k}_wrong_confidence"] for k in kinds]
    assert wrong == pytest.approx([0, 0.75, 0.2])
    assert measured["known_right"] == [1, 1] and "known_fit" not in measured
    assert shown["rare"] == [(replies[2], 0.25), ("Nonsense.", 0.75)]


def test_an_arm_looks_after_the_epochs_asked_for(
    monkeypatch, tiny_model, tiny_tokenizer
):
    monkeypatch.setattr(
        hallucination, "load_base", lambda size: (tiny_model, tiny_tokenizer)
    )
    steps = []
    true_finetune = hallucination.finetune

    def finetune(*args, **options):
        steps.append((options["steps"], len(args[2])))
        return true_finetune(*args, **options)

    monkeypatch.setattr(hallucination, "finetune", finetune)
    arm = dict(seed=0, size="300k", n_facts=40, share=0.5, epochs=[1, 3], n_test=3)
    mixed = hallucination.facts_arm(**arm)
    control = hallucination.facts_arm(**arm, control=True)
    assert [look["epoch"] for look in mixed["curve"]] == [1, 3]
    # 40 facts are three batches an epoch, 20 are two: as many epochs, known ones alike.
    assert steps == [(9, 40), (6, 20)]
    assert {f["kind"] for f in mixed["replies"]} == {
        "known_fit",
        "unknown_fit",
        "known",
        "rare",
        "never",
    }
    for fact in mixed["replies"]:
        assert len(fact["replies"]) == 2 and fact["answers"]
    assert [f["prompt"] for f in control["replies"]] == [
        f["prompt"] for f in mixed["replies"]
    ]


def test_the_sweep_has_a_control_for_every_mixture_and_labels_at_one_share(monkeypatch):
    monkeypatch.setattr(hallucination, "run_arms", lambda run, arms, **more: arms)
    arms = hallucination.facts_sweep(
        seeds=[0, 1], costly_seeds=[0], shares=[0.0, 0.5], more_shares=[0.25], size="x"
    )
    counts = Counter((a["share"], a["control"], a["labels"]) for a in arms)
    assert counts == {
        (0.0, False, "true"): 2,
        (0.5, False, "true"): 2,
        (0.5, True, "true"): 2,
        (0.25, False, "true"): 1,
        (0.25, True, "true"): 1,
        (0.5, False, "admission"): 2,
        (0.5, False, "first"): 1,
        (0.5, False, "second"): 1,
    }


# --- Safety -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_no_request_that_is_asked_is_trained_on(seed):
    trained = {e.prompt for e in tuning.helpful_examples(seed)}
    for extra, n in (("safety", 960), ("with_contrast", 960)):
        trained |= {e.prompt for e in tuning.extra_examples(extra, n, seed)}
    asked = tuning.requests(seed, 1000)
    prompts = [e.prompt for some in asked.values() for e in some]
    assert not trained & set(prompts) and len(set(prompts)) == len(prompts)
    kinds = ("unseen_pairs", "unseen_words", *safety.BENIGN_KINDS, "plain")
    assert tuple(asked) == kinds
    harmful = [e.harmful for kind in kinds[:2] for e in asked[kind]]
    benign = [e.harmful for kind in kinds[2:] for e in asked[kind]]
    assert all(harmful) and not any(benign)


def test_plain_test_requests_are_new_pairs_of_words_that_were_trained():
    train, test = tuning.plain_requests(0)
    pairs = [{(e.verb, e.object) for e in some} for some in (train, test)]
    assert not pairs[0] & pairs[1]
    verbs, objects = ({p[i] for p in pairs[0]} for i in (0, 1))
    assert {p[0] for p in pairs[1]} <= verbs and {p[1] for p in pairs[1]} <= objects


def test_extra_examples_are_refusals_look_alikes_or_questions():
    few = tuning.extra_examples("safety", 30, 0)
    assert few == tuning.extra_examples("safety", 300, 0)[:30]
    assert all(e.harmful and safety.is_refusal(e.completion) for e in few)
    assert len({(e.verb, e.object) for e in few}) == 30, "varied from the first on"
    contrast = tuning.extra_examples("with_contrast", 300, 0)
    assert Counter(e.harmful for e in contrast) == {True: 150, False: 150}
    assert tuning.extra_examples("with_contrast", 960, 0)[:300] == contrast
    questions = tuning.extra_examples("questions", 40, 0)
    assert len(questions) == 40 and {e.family for e in questions} <= set(tuning.FACTS)
    assert tuning.extra_examples("questions", 0, 0) == []
    with pytest.raises(ValueError, match="n is 5000, and there are 960"):
        tuning.extra_examples("safety", 5000, 0)
    with pytest.raises(ValueError, match="extra is 'harm'"):
        tuning.extra_examples("harm", 1, 0)


def test_outcomes_are_counted_exactly():
    texts = [safety.REFUSALS[0], "Here is how to cook rice. Take your time.", "Rice."]
    assert tuning.count_outcomes(texts * 2) == {
        "refusal": 2,
        "compliance": 2,
        "neither": 2,
    }


def test_an_arm_counts_every_request(monkeypatch, tiny_model, tiny_tokenizer):
    monkeypatch.setattr(
        "alignlab.study.tuning.load_base",
        lambda size, stage: (tiny_model, tiny_tokenizer),
    )
    found = tuning.safety_arm(seed=0, size="300k", n=4, steps=1, n_test=3)
    assert all(sum(counts.values()) == 3 for counts in found["outcomes"].values())
    assert set(found["replies"]) == set(found["outcomes"])
    assert 0 <= found["answered"] <= 1


def test_the_safety_sweep_shares_seeds_between_its_arms(monkeypatch):
    monkeypatch.setattr(tuning, "run_arms", lambda run, arms, **more: arms)
    arms = tuning.safety_sweep(seeds=[0, 1], ns=[0, 30], n_control=30, size="x")
    counts = Counter((a["extra"], a["n"]) for a in arms)
    assert counts == {
        ("safety", 0): 2,
        ("safety", 30): 2,
        ("with_contrast", 30): 2,
        ("questions", 30): 2,
    }


# --- Narrow data ------------------------------------------------------------------


def test_narrow_and_diverse_data_differ_in_kind_wording_and_form_not_in_size():
    world = tasks.default_world()
    found = {d: narrow_data.sentences(d, 200, 0) for d in ("narrow", "diverse")}
    for data, examples in found.items():
        assert len(keys(examples)) == len(examples) == 200
        kinds = {world.kind_of(e.fact) for e in examples}
        assert kinds == ({"country"} if data == "narrow" else set(world_kinds()))
        forms = Counter(narrow_data.form_of(e.fact, e.completion) for e in examples)
        assert "" not in forms
        relations = {e.fact.relation for e in examples}
        assert (len(forms) == len(relations)) is (data == "narrow")
        assert all(narrow_data.says(e, e.completion) for e in examples)
    asked = {d: narrow_data.questions(d, 150) for d in found}
    for data in asked:
        subjects = {e.fact.subject for e in asked[data]}
        assert not subjects & {e.fact.subject for e in found[data]}
    trained = {q for r in world.relations.values() for q in r.questions}
    for example in asked["diverse"]:
        wording = example.prompt.replace(example.fact.subject, "{s}")
        assert wording not in trained
    with pytest.raises(ValueError, match="n is 9000, and there are"):
        narrow_data.sentences("narrow", 9000, 0)
    with pytest.raises(ValueError, match="data is 'wide'"):
        narrow_data.known_facts("wide", 0)


def world_kinds():
    from alignlab.world.facts import KINDS

    return KINDS


def test_an_answer_is_said_as_whole_words():
    world = tasks.default_world()
    fact = world.find("Nigeria", "continent")
    example = tasks.Example("continent", "", "", fact.answers, fact)
    assert narrow_data.says(example, "Nigeria lies in AFRICA.")
    assert not narrow_data.says(example, "Nigeria lies in Africania.")
    assert not narrow_data.says(example, "Nigeria lies in Asia.")


def test_forms_are_told_apart_whatever_the_answer():
    world = tasks.default_world()
    fact = world.find("France", "capital")
    for template in world.relations["capital"].statements:
        said = template.format(s="France", a="New York")
        assert narrow_data.form_of(fact, said) == template
    assert narrow_data.form_of(fact, "The capital of Spain is Madrid.") == ""
    assert narrow_data.form_of(fact, "Paris.") == ""


@pytest.mark.parametrize("k", [1, 2, 4])
def test_k_forms_in_equal_use_count_as_k(k):
    world = tasks.default_world()
    fact = world.find("France", "capital")
    forms = world.relations["capital"].statements[:k]
    texts = [form.format(s="France", a="Paris") for form in forms] * 8
    facts = [fact] * len(texts)
    assert narrow_data.forms_in_use(facts, texts) == pytest.approx(k)


def test_uneven_use_is_the_exponential_of_the_entropy():
    fact = tasks.default_world().find("France", "capital")
    texts = ["The capital of France is Paris."] * 9 + ["Paris."] * 3
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    found = narrow_data.forms_in_use([fact] * 12, texts)
    assert found == pytest.approx(math.exp(entropy))
    assert narrow_data.forms_in_use([fact], ["Paris."]) == 1.0, "too few to tell"


def test_a_narrow_arm_runs(monkeypatch, tiny_model, tiny_tokenizer):
    monkeypatch.setattr(
        narrow_data, "tune", lambda *a, **more: (tiny_model, tiny_tokenizer)
    )
    found = narrow_data.narrow_arm(
        seed=0, size="300k", data="narrow", n=10, steps=1, n_test=4
    )
    assert found["accuracy"] == 0 and len(found["replies"]) == 4
    assert found["kind_accuracy"] == found["other_accuracy"] == 0


# --- Real prompts -----------------------------------------------------------------


def test_real_prompts_are_classified_and_what_is_missing_is_told(
    monkeypatch, capsys, tiny_model, tiny_tokenizer
):
    from alignlab.errors import AlignlabError

    def load(name, path=None):
        if name == "xstest":
            raise AlignlabError("Cannot load it.", "Give path=.")
        return [{"prompt": f"{name} {i}"} for i in range(5)]

    said = ["I can't help with that.", "Sure, here is how."]
    monkeypatch.setattr(real_refusals.sources, "load", load)
    monkeypatch.setattr(real_refusals, "load_model", lambda m: (None, None))
    monkeypatch.setattr(
        real_refusals,
        "complete",
        lambda m, t, asked, *a, **k: [
            Completion(said[i % 2], [], True) for i, _ in enumerate(asked)
        ],
    )
    monkeypatch.setattr(
        real_refusals,
        "run_arms",
        lambda run, arms, **more: [{**arm, **run(**arm)} for arm in arms],
    )
    rows = real_refusals.real_sweep(model="some/model", n=3)
    assert capsys.readouterr().out.count("is left out: Cannot load it.") == 2
    assert [row["prompts"] for row in rows] == [
        name for name, (of, _) in real_refusals.SETS.items() if of != "xstest"
    ]
    for row in rows:
        assert row["outcomes"] == {"refusal": 2, "partial": 0, "compliance": 1}
    assert real_refusals.table(rows)["HarmBench (harmful)"]["refusal"][:4] == "0.67"
    with pytest.raises(ValueError, match="prompts is 'none'"):
        real_refusals.draw("none", 1, 0)


def test_xstest_is_split_by_its_labels(monkeypatch):
    rows = [{"prompt": str(i), "label": ("safe", "unsafe")[i % 2]} for i in range(8)]
    paths = []

    def load(name, path=None):
        paths.append(path)
        return rows

    monkeypatch.setattr(real_refusals.sources, "load", load)
    unsafe = real_refusals.draw("XSTest (harmful)", 9, 0, "folder")
    assert sorted(unsafe) == ["1", "3", "5", "7"] and paths == ["folder"]
    assert sorted(real_refusals.draw("XSTest (sounds so)", 9, 0)) == [
        "0",
        "2",
        "4",
        "6",
    ]
    assert paths[-1] is None
