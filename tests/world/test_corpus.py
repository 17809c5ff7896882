"""The corpus: every document is in it once, in an order by the seed, packed exactly."""

import re
from collections import Counter

import numpy as np
import pytest

from alignlab.world import corpus, skills
from alignlab.world.corpus import documents, pack, prose
from alignlab.world.facts import RELATIONS, Fact, World, build_world, paragraphs

TEXTS = [
    "The capital of France is Paris.",
    "Say it in one word.",
    "Is gold a metal? Yes. Its number is 79. " * 3,
    "Peru",
    " two  spaces,\t a tab\n\nand lines; it's 'so' 1,234 ",
    "",
]

# --- Packing ------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 5, 16, 64])
def test_every_token_is_packed_in_order_and_each_document_is_closed(
    length, tiny_tokenizer
):
    end = tiny_tokenizer.eos_token_id
    expected = []
    for text in TEXTS:  # one by one, and not as a batch
        expected += [*tiny_tokenizer(text, add_special_tokens=False).input_ids, end]
    rows = pack(TEXTS, tiny_tokenizer, length)
    assert rows.shape == (len(expected) // length, length)
    assert rows.flatten().tolist() == expected[: rows.size]
    assert len(expected) - rows.size < length, "only an incomplete row is dropped"


def test_packed_documents_read_as_they_were_written(tiny_tokenizer):
    stream = pack(TEXTS, tiny_tokenizer, 1).flatten().tolist()
    *closed, rest = tiny_tokenizer.decode(stream).split(tiny_tokenizer.eos_token)
    assert [text.split() for text in closed] == [text.split() for text in TEXTS]
    assert rest == ""


def test_no_padding_and_no_other_special_token(tiny_tokenizer):
    rows = pack(TEXTS, tiny_tokenizer, 8)
    special = set(tiny_tokenizer.all_special_ids) - {tiny_tokenizer.eos_token_id}
    assert not special & set(rows.flatten().tolist())


# --- Real texts ---------------------------------------------------------------------

NUMBERS = {"bible_bbe": 300, "movie_ratings": 40, "amazon_ratings": 30}
NUMBERS |= {"nyt_ratings": 21, "tweet_ratings": 10}


@pytest.fixture
def small_sources(monkeypatch):
    """Data sets of a few texts each; a text says where it comes from."""

    def load(name):
        texts = [f"{name}  number {i}\n of many words" for i in range(NUMBERS[name])]
        return {"text": texts}

    monkeypatch.setattr(corpus.sources, "load", load)


def test_the_share_of_each_source_is_read_and_nothing_twice(small_sources):
    texts = prose(0)
    assert len(set(texts)) == len(texts)
    comments = [t for t in texts if not t.startswith("bible_bbe")]
    counts = Counter(t.split()[0] for t in comments)
    expected = {"movie_ratings": 40, "amazon_ratings": 15}
    assert counts == expected | {"nyt_ratings": 5, "tweet_ratings": 2}
    assert all(text == " ".join(text.split()) for text in texts)
    verses = [f"bible_bbe number {i} of many words" for i in range(300)]
    n_passages = len(list(corpus._joined(verses)))
    assert len(texts) - len(comments) == round(0.35 * n_passages)


def test_prose_is_drawn_by_the_seed(small_sources):
    assert prose(1) == prose(1)
    assert set(prose(1)) != set(prose(2))


@pytest.mark.parametrize("longest", [20, 60, 700])
def test_verses_are_joined_in_order_as_far_as_they_fit(longest):
    verses = [f"{i} {'and ' * (i % 9)}so" for i in range(50)] + ["word " * 20]
    passages = list(corpus._joined([v.strip() for v in verses], longest))
    left = [v.strip() for v in verses]
    for passage in passages:
        joined = [left.pop(0)]
        while " ".join(joined) != passage:
            joined.append(left.pop(0))
        letters = sum(len(verse) for verse in joined) + len(joined) - 2
        assert letters <= longest or len(joined) == 1
        assert not left or len(passage) + len(left[0]) > longest, "it would have fitted"
    assert not left


def test_no_verse_gives_no_passage():
    assert list(corpus._joined([])) == []


# --- All of it ----------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, small_sources):
    monkeypatch.setattr(corpus, "SKILL_PARAGRAPHS", 25)
    facts = [
        Fact("France", "capital", ("Paris",), 9, ("Paris",)),
        Fact("Norway", "capital", ("Oslo",), 0, ("Oslo",)),
        Fact("France", "currency", ("euro",), 4, ("euro",)),
    ]
    return World(tuple(facts), RELATIONS, 0)


def test_all_documents_are_there_once(small):
    expected = [*paragraphs(small, 3), *skills.statements(25, 3), *prose(3)]
    texts = documents(small, 3)
    assert Counter(texts) == Counter(expected)
    assert texts != expected, "they are mixed"
    kinds = ["number" in text for text in texts]  # only prose contains it
    half = len(kinds) // 2
    assert 0.3 < np.mean(kinds[:half]) / np.mean(kinds[half:]) < 3


def test_documents_repeat_by_seed(small):
    assert documents(small, 3) == documents(small, 3)
    assert documents(small, 3) != documents(small, 4)
    assert not any("Norway" in text for text in documents(small, 3))


@pytest.mark.network
@pytest.mark.slow
def test_the_corpus_asks_for_no_fact():
    world = build_world(0)
    texts = documents(world, 0)
    sentences = {s for text in texts for s in re.split(r"(?<=[.?]) ", text)}
    stated = questions = 0
    for fact in world.facts:
        relation = world.relations[fact.relation]
        for template in (*relation.questions, *relation.held_out_questions):
            questions += template.format(s=fact.subject) in sentences
        if fact.exposure > 50:
            first = relation.statements[0]
            stated += first.format(s=fact.subject, a=fact.answer) in sentences
    assert questions == 0
    assert stated > 1000, "sentences are cut where statements end"
