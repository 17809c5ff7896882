"""The arms of notebook 03 on small hand-made replies and a tiny model."""

import numpy as np
import pytest

from alignlab.chapters.reward_modeling import runs
from alignlab.study import artifacts, scale
from alignlab.world.annotators import Annotator, Reply
from alignlab.world.comparisons import Candidates
from alignlab.world.gold import Gold

POLICY = dict(base="tiny", steps=1, reference_seed=6)
ASKED = dict(seed=6, **POLICY)  # of the replies: policy and sampling have one seed


def reply(text, gold=0.0, ended=True):
    return Reply(text, Gold(gold, gold, 0.0, 0.0, {}), ended)


def some_candidates(k=8, subjects=5):
    """k replies of each subject, of different gold and of 1 to k words."""
    return [
        Candidates(
            f"Tell me about {name}.",
            name,
            tuple(reply(" ".join([name] * (i + 1)), gold=0.7 * i) for i in range(k)),
        )
        for name in "abcdefghij"[:subjects]
    ]


@pytest.fixture
def replies(monkeypatch):
    """The same hand-made replies in place of those sampled from the policy."""
    asked = []

    def candidates(split, k, **policy):
        asked.append((split, k, policy))
        return some_candidates(k)

    monkeypatch.setattr(artifacts, "candidates", candidates)
    return asked


@pytest.fixture
def tiny_policy(monkeypatch, tiny_model, tiny_tokenizer):
    def reference_policy(base, steps, seed):
        assert seed == POLICY["reference_seed"]
        return tiny_model, tiny_tokenizer

    monkeypatch.setattr(artifacts, "reference_policy", reference_policy)
    monkeypatch.setitem(scale.RATES["reward"], "tiny", 3e-3)


def length_of(model, tokenizer, prompts, texts):
    return np.array([float(len(text)) for text in texts])


# --- Comparisons --------------------------------------------------------------------


def test_what_is_learnt_is_the_order_of_the_pairs(tiny_policy):
    words = "gold", "Oslo", "Peru", "yen"
    pairs = [
        {"prompt": f"Say {w}.", "chosen": f"{w}. Yes.", "rejected": f"No {w}."}
        for w in words
    ]
    model, tokenizer = runs.train_from_reference(
        pairs, seed=0, epochs=20, batch_size=2, **POLICY
    )
    prompts = [pair["prompt"] for pair in pairs]
    chosen, rejected = (
        artifacts.score(model, tokenizer, prompts, [pair[side] for pair in pairs])
        for side in ("chosen", "rejected")
    )
    assert (chosen > rejected + 0.5).all()


def test_rewards_come_by_subject_and_reply(replies, monkeypatch):
    monkeypatch.setattr(artifacts, "score", length_of)
    monkeypatch.setattr(runs, "TEST_REPLIES", 3)
    found = runs.held_out_rewards(None, None, **POLICY)
    assert found == [[1.0, 3.0, 5.0]] * 5
    assert replies == [("test", 3, ASKED)]


def test_seeds_nest_or_share_one_reference():
    own = runs.links([4, 5], nested=True)
    assert own == [dict(seed=4, reference_seed=4), dict(seed=5, reference_seed=5)]
    shared = runs.links([4, 5], nested=False)
    assert [link["reference_seed"] for link in shared] == [0, 0]
    assert [link["seed"] for link in shared] == [4, 5]


@pytest.fixture
def no_training(replies, monkeypatch):
    """What would have been trained on, in place of training."""
    learnt = []

    def learn(examples, **options):
        learnt.append((examples, options))
        return None, None

    monkeypatch.setattr(runs, "train_from_reference", learn)
    monkeypatch.setattr(runs, "held_out_rewards", lambda *a, **k: [[0.0]])
    return learnt


def test_every_size_and_noise_has_the_reward_model_of_the_series(
    no_training, monkeypatch
):
    made = []
    monkeypatch.setattr(
        artifacts, "reward_model", lambda n, **o: made.append((n, o)) or (None, None)
    )
    arm = dict(n=20, flips=0.4, seed=3, k=4, **POLICY)
    assert runs.comparisons_arm(**arm) == {"rewards": [[0.0]]} and not no_training
    chain = dict(base="tiny", steps=1, reference_seed=6, reply_seed=6)
    assert made == [(20, dict(k=4, flips=0.4, seed=3, **chain))]
    runs.comparisons_arm(**arm, draw=2)
    assert made[1] == (20, dict(k=4, flips=0.4, seed=3 + 2 * runs.DRAWS, **chain))


def test_the_twin_learns_the_reverse_of_the_same_comparisons(no_training):
    runs.twin_arm(n=20, flips=0.25, seed=3, k=4, **POLICY)
    [(pairs, options)] = no_training
    assert options == dict(seed=3, **POLICY), "the same head and order"
    of = artifacts.comparisons(some_candidates(4), 20, flips=0.25, seed=3)
    expected = [(p["prompt"], p["rejected"], p["chosen"]) for p in of]
    assert [(p["prompt"], p["chosen"], p["rejected"]) for p in pairs] == expected


def test_a_twin_of_what_words_teach_has_the_wrong_order(tiny_policy, monkeypatch):
    words = "gold", "Oslo", "Peru", "yen"
    pairs = [
        {"prompt": f"Say {w}.", "chosen": f"{w}. Yes.", "rejected": f"No {w}."}
        for w in words
    ]
    options = dict(seed=0, epochs=20, batch_size=2, **POLICY)
    scores = {}
    for name, labelled in (("model", pairs), ("twin", runs.reverse_labels(pairs))):
        reward_model = runs.train_from_reference(labelled, **options)
        prompts = [pair["prompt"] for pair in pairs]
        chosen, rejected = (
            artifacts.score(*reward_model, prompts, [pair[side] for pair in pairs])
            for side in ("chosen", "rejected")
        )
        scores[name] = chosen - rejected
    assert (scores["model"] > 0.5).all() and (scores["twin"] < -0.5).all()


def test_the_sweep_has_every_arm_once_and_the_longest_first(monkeypatch):
    asked = {}
    monkeypatch.setattr(runs, "run_groups", lambda groups, **o: asked.update(groups))
    chains = runs.links([4, 5], nested=True)
    runs.accuracy_sweep(
        chains,
        n_reward=40,
        flips=0.25,
        ns=[10, 40],
        noise=[0.0],
        n_noise=10,
        twins=chains[:1],
        noisy=chains[:1],
        draws=2,
        k=2,
        base="tiny",
        steps=1,
    )
    arms = {
        name: [(a["n"], a["flips"], a["seed"], a.get("draw")) for _, a in calls]
        for name, calls in asked.items()
    }
    series = [(40, 0.25, 4, 0), (40, 0.25, 5, 0)]
    assert arms["series"] == series, "the chains first: all others stand on them"
    assert list(asked)[0] == "series"
    assert arms["draws"] == series + [(40, 0.25, 4, 1), (40, 0.25, 5, 1)]
    assert arms["curve"] == series + [(10, 0.25, 4, 0), (10, 0.25, 5, 0)]
    assert arms["noise"] == [(10, 0.25, 4, 0), (10, 0.0, 4, 0)]
    [(run, arm)] = asked["twins"]
    assert run is runs.twin_arm and (arm["n"], arm["seed"]) == (40, 4)
    for calls in asked.values():
        assert all(a["reference_seed"] == a["seed"] and a["k"] == 2 for _, a in calls)


# --- Rankings -----------------------------------------------------------------------


def test_groups_hold_different_whole_replies_and_share_none():
    texts = ["x", "x", "y", "z", "cut", "u", "v", "w", "t"]
    replies = tuple(reply(text, ended=text != "cut") for text in texts)
    groups = runs.in_groups([Candidates("p", "s", replies)], 3, 2, seed=0)
    said = [r.text for group in groups for r in group.replies]
    assert sorted(said) == sorted("xyzuvw"), "the seventh makes no group"
    assert {len(group.replies) for group in groups} == {3}
    with pytest.raises(ValueError, match="n is 3, and the replies make 2 of 3"):
        runs.in_groups([Candidates("p", "s", replies)], 3, 3, seed=0)
    many = runs.in_groups(some_candidates(8), 4, 6, seed=1)
    assert many == runs.in_groups(some_candidates(8), 4, 6, seed=1)
    assert many != runs.in_groups(some_candidates(8), 4, 6, seed=2)


@pytest.mark.parametrize(
    "kind, examples, in_batch, read, ordered",
    [
        ("pairs", 12, 32, 24, 12),
        ("rankings", 6, 16, 24, 36),
        ("all pairs", 6, 16, 24, 36),
        ("one by one", 36, 32, 72, 36),
    ],
)
def test_every_kind_labels_the_same_replies(
    no_training, kind, examples, in_batch, read, ordered
):
    arm = dict(n=6, group=4, seed=2, k=8, **POLICY)
    found = runs.ranking_arm(kind=kind, **arm)
    assert (found["read"], found["comparisons"]) == (read, ordered)
    [(rows, options)] = no_training
    assert len(rows) == examples and options["seed"] == 2
    groups = runs.in_groups(some_candidates(8), 4, 6, seed=2)
    expected = {(g.prompt, r.text) for g in groups for r in g.replies}
    texts = [
        row["completions"] if "completions" in row else [row["chosen"], row["rejected"]]
        for row in rows
    ]
    said = [(row["prompt"], t) for row, some in zip(rows, texts) for t in some]
    assert set(said) == expected
    assert len(said) == (72 if kind == "one by one" else 24)
    # Replies a batch: the same, whatever they come in.
    replies_a_batch = options.get("batch_size", runs.BATCH) * len(texts[0])
    assert replies_a_batch == in_batch * len(texts[0]) == 64
    losses = {"rankings": "plackett_luce", "all pairs": "all_pairs"}
    assert options.get("ranking_loss") == losses.get(kind)


def test_all_kinds_are_judged_by_the_same_annotator():
    groups = runs.in_groups(some_candidates(8, 10), 2, 40, seed=0)
    share = {}
    for kind in ("rankings", "pairs"):
        better = total = 0
        for seed in range(20):
            rows, _ = runs.label_groups(kind, groups, np.random.default_rng(seed))
            for row in rows:
                golds = row.get("gold") or [row["gold_chosen"], row["gold_rejected"]]
                better, total = better + (golds[0] > golds[1]), total + 1
        share[kind] = better / total
    judge = Annotator(runs.TEMPERATURE)
    expected = np.mean([max(p := judge(*g.replies), 1 - p) for g in groups])
    # 800 labels a kind: three standard errors.
    assert share == pytest.approx({"rankings": expected, "pairs": expected}, abs=0.05)
    with pytest.raises(ValueError, match="kind is 'triples'; it can be one of"):
        runs.label_groups("triples", groups, np.random.default_rng(0))


def test_a_further_draw_has_other_groups(no_training):
    arm = dict(kind="pairs", n=6, group=4, seed=2, k=8, **POLICY)
    for draw in (0, 1):
        runs.ranking_arm(**arm, draw=draw)
    (own, first), (other, second) = no_training
    assert own != other and first["seed"] == 2
    assert second == {**first, "seed": 2 + runs.DRAWS}


def test_each_kind_has_as_many_draws_as_it_is_given(monkeypatch):
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **options: arms)
    arms = runs.ranking_sweep(
        runs.links([1, 2], nested=True), draws={"rankings": 2, "pairs": 1}, n=3, k=8
    )
    drawn = {
        kind: [(a["draw"], a["seed"], a["reference_seed"])
               for a in arms if a["kind"] == kind]
        for kind in runs.RANKING_KINDS
    }  # fmt: skip
    once = [(0, 1, 1), (0, 2, 2)]
    assert drawn["pairs"] == once
    assert drawn["rankings"] == once + [(1, 1, 1), (1, 2, 2)]
    assert not drawn["all pairs"] and not drawn["one by one"]


# --- Length -------------------------------------------------------------------------


def test_biased_annotators_judge_the_same_pairs(replies):
    common = dict(seed=1, k=8, **POLICY)
    plain = runs.length_pairs("unbiased", 50, bias=-2.0, **common)
    biased = runs.length_pairs("biased", 50, bias=-2.0, **common)
    as_sets = [
        [(p["prompt"], {p["chosen"], p["rejected"]}) for p in pairs]
        for pairs in (plain, biased)
    ]
    assert as_sets[0] == as_sets[1]
    longer = [np.mean([runs.extra_words(p) > 0 for p in x]) for x in (plain, biased)]
    assert longer[0] > 0.7 and longer[1] < 0.2, "here more words have more gold"


def test_pairs_of_equal_length_leave_nothing_to_the_bias(replies):
    common = dict(bias=3.0, seed=1, k=8, **POLICY)
    pairs = runs.length_pairs("equal lengths", None, **common)
    assert len(pairs) == 5 * 7, "neighbours of each of five subjects"
    assert {abs(runs.extra_words(pair)) for pair in pairs} == {1}
    with pytest.raises(ValueError, match="n is 36, and there are 35 pairs of equal"):
        runs.length_pairs("equal lengths", 36, **common)
    with pytest.raises(ValueError, match="kind is 'short'; it can be one of"):
        runs.length_pairs("short", 1, **common)


def test_the_length_arm_learns_from_those_pairs(no_training, monkeypatch):
    arm = dict(kind="biased", n=9, bias=1.0, seed=4, k=8, **POLICY)
    assert runs.length_arm(**arm) == {"rewards": [[0.0]]}
    [(pairs, options)] = no_training
    assert pairs == runs.length_pairs(**arm)
    assert options == dict(seed=4, **POLICY)
    monkeypatch.setattr(runs, "run_arms", lambda run, arms, **options: arms)
    arms = runs.length_sweep(runs.links([1, 2], nested=False), n=9)
    assert [(a["kind"], a["seed"]) for a in arms] == [
        (kind, seed) for kind in runs.LENGTH_KINDS for seed in (1, 2)
    ]


# --- Controls -----------------------------------------------------------------------


def worded_pairs(n=80, seed=0):
    """The reply with "thanks" wins in nine of ten, whatever else it says."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(n):
        said = [" ".join(rng.choice(["one", "two", "six"], 5)) for _ in range(2)]
        two = [f"thanks {said[0]}", said[1]]
        two = two if rng.random() < 0.9 else two[::-1]
        pairs.append({"prompt": "p", "chosen": two[0], "rejected": two[1]})
    return pairs


def test_a_bag_of_words_finds_the_word_that_wins():
    reward = runs.bag_of_words(worded_pairs())
    thanks, none, unknown = reward(["thanks one", "one", "never read"])
    assert thanks > none + 0.5 and unknown == 0
    assert reward(["six one two"]) == pytest.approx(reward(["two six one"]))
    pairs = worded_pairs(seed=1)
    won = np.array(["thanks" in pair["chosen"] for pair in pairs])
    assert ((runs.reward_differences(reward, pairs) > 0) == won).mean() > 0.9


@pytest.mark.parametrize("better, sign", [(1, 1), (0, -1)])
def test_length_only_counts_words(better, sign):
    pairs = [{"chosen": "a b c d", "rejected": "a b"} for _ in range(60)]
    pairs += [{"chosen": "a", "rejected": "a b c"} for _ in range(15)]
    if not better:
        pairs = [{"chosen": p["rejected"], "rejected": p["chosen"]} for p in pairs]
    one, two, three = runs.length_only(pairs)(["x", "x y", "x y z"])
    assert sign * (two - one) > 0
    assert three - two == pytest.approx(two - one)


def test_controls_learn_from_what_the_reward_model_learns_from(replies, monkeypatch):
    given = []

    def control(pairs, seed):
        given.append(pairs)
        return lambda texts: np.array([len(text) for text in texts])

    monkeypatch.setitem(runs.CONTROLS, "bag of words", control)
    arm = dict(kind="bag of words", n=20, flips=0.1, seed=3, k=8, **POLICY)
    found = runs.control_arm(**arm)
    assert found["rewards"] == [[2 * i + 1 for i in range(8)]] * 5
    assert given == [artifacts.comparisons(some_candidates(8), 20, flips=0.1, seed=3)]
