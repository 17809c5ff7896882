"""Narrow against diverse data: equal in size, and forms of reply told apart."""

import math
from collections import Counter

import pytest

from alignlab.chapters.limits_of_imitation import narrow_data
from alignlab.world import tasks


def keys(examples):
    return {(e.fact.subject, e.fact.relation) for e in examples}


def test_narrow_and_diverse_data_differ_in_kind_wording_and_form_not_in_size():
    world = tasks.default_world()
    found = {
        d: narrow_data.training_sentences(d, 200, 0) for d in ("narrow", "diverse")
    }
    for data, examples in found.items():
        assert len(keys(examples)) == len(examples) == 200
        kinds = {world.kind_of(e.fact) for e in examples}
        assert kinds == (
            {"country"}
            if data == "narrow"
            else {r.kind for r in world.relations.values()}
        )
        forms = Counter(narrow_data.form_of(e.fact, e.completion) for e in examples)
        assert "" not in forms
        relations = {e.fact.relation for e in examples}
        assert (len(forms) == len(relations)) is (data == "narrow")
        assert all(narrow_data.says(e, e.completion) for e in examples)
    trained = {e.fact.subject for examples in found.values() for e in examples}
    for group in narrow_data.test_questions(150).values():
        assert not trained & {e.fact.subject for e in group}
    with pytest.raises(ValueError, match="n is 9000, and there are"):
        narrow_data.training_sentences("narrow", 9000, 0)
    with pytest.raises(ValueError, match="data is 'wide'"):
        narrow_data.known_facts("wide", 0)


def test_other_kinds_are_apart_from_the_narrow_one_and_only_own_wordings_are_trained():
    world = tasks.default_world()
    sets = narrow_data.test_questions(150)
    kinds = {
        name: {world.kind_of(e.fact) for e in group} for name, group in sets.items()
    }
    assert kinds["own"] == kinds["kind"] == {"country"}
    assert kinds["other"] == {"element", "city", "word"}
    trained = {q for r in world.relations.values() for q in r.questions}
    for name, group in sets.items():
        assert all(e.fact.known for e in group)
        for example in group:
            wording = example.prompt.replace(example.fact.subject, "{s}")
            assert (wording in trained) is (name == "own")


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
        seed=0, base="300k", data="narrow", n=10, steps=1, n_test=4
    )
    assert found["right"] == {name: [0] * 4 for name in ("own", "kind", "other")}
    assert len(found["replies"]) == 4 and found["styles"] >= 1
