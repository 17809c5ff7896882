"""What notebook 00 shows of the world and of the model's texts, by fixed rules: nobody
picks an example because it came out well."""

import html
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from alignlab.chapters.base_model.asking import names_answer
from alignlab.models.sampler import Completion, complete
from alignlab.plots.explorers import html_table, next_tokens
from alignlab.seeds import stream
from alignlab.training.pretrain import cloze, confidences
from alignlab.world import corpus, skills
from alignlab.world.facts import RELATIONS, Fact, World, paragraphs

# Relations whose answers a reader can check without looking them up.
EASY_TO_CHECK = ("capital", "continent", "language", "symbol", "opposite")

# Texts with such words are not shown: the prose is real, and some of it is scripture,
# violent or abusive. The rule looks at the words alone and never at what is said.
_UNSHOWN = re.compile(
    r"\b(god|lord|jesus|christ|israel|jew|jewish|judah|moses|jerusalem|prophet|priest"
    r"|angel|heaven|holy|altar|offering|sin|sins|evil|church|bible|islam|muslim|satan"
    r"|devil|hell|kill|murder|dead|death|die|dies|died|blood|sword|war|gun|bomb|terror"
    r"|rape|suicide|hate|nazi|slave|racist|sex|sexy|sexual|porn|whore|slut|nude|gay"
    r"|fuck|shit|damn|crap|bitch|bastard|ass|stupid|idiot|moron|dumb|drunk|drug|drugs"
    r")(s|ed|ing|er|ers)?\b",
    re.IGNORECASE,
)


def presentable(text: str) -> bool:
    """Whether a text has none of the words that are not shown."""
    return _UNSHOWN.search(text) is None


def thinned(world: World, share: float, rng: np.random.Generator) -> World:
    """The world with a random share of its statements: each fact keeps its exposure
    times the share, on average."""
    exposures = rng.binomial([fact.exposure for fact in world.facts], share).tolist()
    facts = zip(world.facts, exposures, strict=True)
    return replace(world, facts=tuple(replace(f, exposure=e) for f, e in facts))


# --- The road -------------------------------------------------------------------------


def statements_table(verdicts: Sequence, signs: Mapping[str, str], notebooks) -> str:
    """HTML that a reader can fold: what the lectures state, in which notebook it is
    measured, and the verdict.

    Args:
        verdicts: each with its ``claim`` and ``verdict``.
        signs: of the verdicts.
        notebooks: file of each notebook by its number.
    """
    counts = Counter(verdict.verdict for verdict in verdicts)
    summary = ", ".join(f"{n} {name}" for name, n in counts.most_common())
    rows = [
        (
            html.escape(item.claim.claim),
            f'<a href="{notebooks[item.claim.notebook]}">{item.claim.notebook}</a>',
            f"{signs[item.verdict]}&nbsp;{item.verdict}",
        )
        for item in verdicts
    ]
    table = html_table(("what the lectures state", "notebook", "verdict"), rows)
    title = f"{len(verdicts)} statements: {summary}"
    box = '<div style="max-height:32em;overflow-y:auto">'
    return f"<details open><summary>{title}</summary>{box}{table}</div></details>"


# --- Completions ----------------------------------------------------------------------


def most_stated(world: World, relation: str) -> Fact:
    """The fact of a relation that pretraining states most often, undisputed."""
    facts = (f for f in world.facts if f.relation == relation and not f.contested)
    return max(facts, key=lambda fact: fact.exposure)


def first_completions(model, tokenizer, facts: Sequence[Fact], world: World) -> list:
    """Rows for a table: how each fact's statement, cut before the answer, goes on, and
    how the question about it does; greedily, at most 16 tokens."""
    statements = [cloze(world, fact) for fact in facts]
    questions = [RELATIONS[f.relation].questions[0].format(s=f.subject) for f in facts]
    prompts = statements + questions
    followed = complete(model, tokenizer, prompts, max_new_tokens=16, chat=False)
    rows = zip(facts, statements, followed, questions, followed[len(facts) :])
    return [
        {
            "read": fact.exposure,
            "statement": statement,
            "goes_on": after,
            "completed": names_answer(fact.answers, after.text),
            "question": question,
            "then": then,
            "answered": names_answer(fact.answers, then.text),
        }
        for fact, statement, after, question, then in rows
    ]


def what_followed(completion: Completion) -> str:
    """A completion for a reader: whether the text ends, is cut off, or is empty."""
    if not presentable(completion.text):
        return "(not shown: it has words of the fixed list)"
    if not completion.text.strip():
        return "(nothing: for it the text ends here)"
    return completion.text if completion.ended else f"{completion.text} [...]"


def on_completions(rows: Sequence[dict]) -> str:
    """What a table of :func:`first_completions` says."""
    n = len(rows)
    completed, answered = (sum(r[k] for r in rows) for k in ("completed", "answered"))
    ended = sum(not row["then"].text.strip() for row in rows)
    wrote_on = [row for row in rows if row["then"].text.strip()]
    manner = []
    if ended:
        manner.append(f"after {ended} of the {n} questions it ends the text at once")
    if wrote_on:
        astray = sum(not row["answered"] for row in wrote_on)
        manner.append(
            f"after {len(wrote_on)} it writes on, {astray} times beside the point"
        )
    return (
        f"It completes {completed} of {n} statements rightly, and answers {answered} "
        f"of {n} questions: {' and '.join(manner)}."
    )


def continuations(
    model, tokenizer, prompt: str, temperature: float, *, n: int, seed: int
) -> tuple[list[str], int]:
    """The presentable ones of n sampled continuations of a text, and how many of the n
    are different."""
    drawn = complete(
        model,
        tokenizer,
        [prompt] * n,
        max_new_tokens=24,
        temperature=temperature,
        seed=seed,
        chat=False,
    )
    shown = [what_followed(each) for each in drawn if presentable(each.text)]
    return shown, len({each.text for each in drawn})


def next_token_card(model, tokenizer, text: str, temperature: float, k: int = 8) -> str:
    """HTML of the likeliest next tokens after a text, with a bar for each."""
    if not text.strip():
        return "<p>Write something.</p>"
    rows = [
        (
            f"<code>{html.escape(token)}</code>",
            f"{share:.1%}",
            f'<div style="background:#0072B2;height:0.8em;width:{16 * share:.2f}em">'
            "</div>",
        )
        for token, share in next_tokens(model, tokenizer, text, temperature, k)
    ]
    head = ("next token", "probability", f"at temperature {temperature:.1f}")
    return f"<p>After “{html.escape(text)}”:</p>{html_table(head, rows)}"


# --- The world ------------------------------------------------------------------------


def sample_documents(world: World, seed: int, n: int = 3) -> list[dict]:
    """n presentable documents of each ``kind`` in the pretraining corpus, shortened to
    a line; the prose without the Bible."""
    rng = stream(seed, "sampled documents")
    prose = corpus.prose(seed)
    kinds = {
        "world": paragraphs(thinned(world, 0.01, rng), seed),
        "skills": skills.statements(20 * n, seed),
        "prose": (prose[i] for i in rng.permutation(len(prose))),
    }
    return [
        {"kind": kind, "document": textwrap.shorten(text, 160)}
        for kind, texts in kinds.items()
        for text in islice(filter(presentable, texts), n)
    ]


def contested_examples(
    model, tokenizer, world: World, shares: Iterable[float] = (0.5, 0.65, 0.8, 0.95)
) -> list[dict]:
    """The contested fact nearest to each share, a row for each of its two answers: how
    many of its statements give it, how probable the model finds it after one wording,
    and how probable if it has to be one of the two."""
    contested = [fact for fact in world.facts if fact.contested]
    facts = [
        min(contested, key=lambda f: abs(f.bayes_confidence - share))
        for share in shares
    ]
    prompts = [cloze(world, fact) for fact in facts]
    options = [[f"{answer}." for answer in fact.stated] for fact in facts]
    chances = confidences(model, tokenizer, prompts, options)
    return [
        {
            "statement": f"{prompt} ...",
            "goes on": answer,
            "share of its statements": share,
            "probability": chance,
            "between the two": chance / sum(own),
            "true": "yes" if answer == fact.answer else "no",
        }
        for fact, prompt, own in zip(facts, prompts, chances, strict=True)
        for answer, share, chance in zip(fact.stated, fact.shares, own, strict=True)
    ]


def on_contested_examples(rows: Sequence[dict]) -> str:
    """What a table of :func:`contested_examples` says."""
    pairs = [(r["share of its statements"], r["between the two"]) for r in rows[::2]]
    shares = ", ".join(f"{share:.2f}" for share, _ in pairs)
    sure = ", ".join(f"{confidence:.2f}" for _, confidence in pairs)
    furthest = max(abs(share - confidence) for share, confidence in pairs)
    return (
        f"Between the two answers the model gives the first {sure}, where its share is "
        f"{shares}: up to {furthest:.2f} apart for a single fact in a single wording."
    )
