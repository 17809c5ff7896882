"""What fills the tasks: made once, tidy, and right by another way of computing it."""

import html
import json
import math
import re
import subprocess
import sys

import pytest

from alignlab.data import sources
from alignlab.errors import AlignlabError
from alignlab.evaluation.answers import is_correct
from alignlab.world import items
from alignlab.world.items import GYM, Item, gym
from alignlab.world.tasks import Example, table

# --- Items, once --------------------------------------------------------------------


def test_items_are_made_once_and_come_back_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    made = [
        Item({"x": "a", "w": "b"}, ("1.", "one"), ("1", "one"), "train"),
        Item({"x": "c", "w": "b"}, ("2",), ("2",), "test", entry={"answer": "2"}),
        Item({"x": "a", "w": "b"}, ("3",), ("3",), "test"),  # an input that was there
    ]
    calls = []

    def make():
        calls.append(1)
        yield from made

    first, again = (tuple(items.remembered("toy", make)) for _ in range(2))
    assert first == again == tuple(made[:2]) and len(calls) == 1
    assert tuple(items.remembered("other", make)) == first and len(calls) == 2


# --- reasoning-gym ------------------------------------------------------------------


@pytest.mark.network
def test_reasoning_gym_leaves_no_trace_and_its_verifier_decides():
    code = (
        "import sys, json; sys.path.insert(0, '.')\n"
        "from alignlab.world.items import gym\n"
        "d = gym('chain_sum'); e = d[0]; right, wrong = e['answer'], 'x'\n"
        "left = [m for m in sys.modules if m.startswith('reasoning_gym')]\n"
        "print(json.dumps([left, *(d.score_answer(a, e) for a in (right, wrong))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) in ([[], 1.0, 0.0], [[], 1.0, 0.01])


@pytest.mark.network
def test_an_installed_reasoning_gym_is_given_back(monkeypatch):
    mine = object()
    monkeypatch.setitem(sys.modules, "reasoning_gym", mine)
    gym.cache_clear()
    gym("products")
    assert sys.modules["reasoning_gym"] is mine


@pytest.mark.network
@pytest.mark.parametrize("name", GYM)
def test_reasoning_gym_answers_are_right(name):
    oracle = {
        "word_sorting": lambda x: ", ".join(sorted(x.split(", "))),
        "chain_sum": lambda x: str(
            sum(int(n.replace(" ", "")) for n in re.findall(r"(?:^|[-+] )\d+", x))
        ),
        "products": lambda x: str(math.prod(int(n) for n in x.split(" and "))),
    }[name]
    for item in table(name)[:300]:
        assert item.answers == (oracle(item.fields["x"]),)
        example = Example(name, "?", "?", item.answers, entry=item.entry)
        assert is_correct(example, f" {item.answers[0]}. ")


def test_a_missing_source_is_one_clear_error(monkeypatch, tmp_path):
    def missing(name):
        raise AlignlabError(f"no {name}", "run `alignlab data pull`")

    monkeypatch.setattr(sources, "fetch", missing)
    gym.cache_clear()
    before = set(sys.modules)
    with pytest.raises(AlignlabError, match="no reasoning-gym"):
        gym("chain_sum")
    assert not {m for m in set(sys.modules) - before if m.startswith("reasoning_gym")}


# --- Real texts ---------------------------------------------------------------------


@pytest.mark.network
def test_texts_to_classify_are_real_and_unaltered_but_for_spaces():
    rows = sources.load("movie_polarity").to_list()
    letters = {re.sub(r"\W", "", html.unescape(r["text"])): r["label"] for r in rows}
    for item in table("movie_polarity")[:500]:
        assert letters[re.sub(r"\W", "", item.fields["x"])] == item.answers[0]


@pytest.mark.parametrize(
    "raw, tidy",
    [
        ("What 's a celebrity 's name ?", "What's a celebrity's name?"),
        ("celebrities ' real names", "celebrities' real names"),
        ("Why , in the '70's , did it ?", "Why, in the '70's, did it?"),
        ("It did n't ( at all ) end", "It didn't (at all) end"),
        ("`` Yes '' , &lt;3 &amp; so", '"Yes", <3 & so'),
    ],
)
def test_texts_are_spaced_as_people_type(raw, tidy):
    assert items.tidy(raw) == tidy


# --- Rewriting ----------------------------------------------------------------------


@pytest.mark.network
def test_rewriting_does_what_it_says():
    def items(name):
        return [(i.fields, i.answers[0]) for i in table(name)]

    for fields, reply in items("remove_word"):
        words = fields["x"].rstrip(".").split()
        assert reply.rstrip(".").split() == [w for w in words if w != fields["w"]]
        assert len(reply.split()) == len(words) - 1
    for fields, reply in items("replace_word"):
        swapped = [fields["v"] if w.strip(",.") == fields["w"] else w.strip(",.")
                   for w in fields["x"].split()]  # fmt: skip
        assert [w.strip(",.") for w in reply.split()] == swapped != fields["x"].split()
    for fields, reply in items("negate"):
        assert reply.split().count("not") == 1
        assert [w for w in reply.split() if w != "not"] == fields["x"].split()
    for fields, reply in items("polite"):
        assert reply.lower() == f"please {fields['x'].lower()}"
    for fields, reply in items("capitals"):
        assert reply.isupper() and reply.lower() == fields["x"]
    for fields, reply in items("first_word"):
        assert fields["x"].startswith(reply)
    for fields, reply in items("last_word"):
        assert fields["x"].endswith(f" {reply}.")
