"""What the base model reads: the world's statements, skills, and real simple prose.

The prose is a Bible in Basic English and short comments on films, products and news,
without their labels. No text asks for a fact: instruction tuning is to teach that.
"""

import re
from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, count

import numpy as np

from alignlab.data import sources
from alignlab.seeds import stream
from alignlab.world import skills
from alignlab.world.facts import World, paragraphs

SKILL_PARAGRAPHS = 30_000
PROSE = {  # data set -> share of its texts that is read
    "bible_bbe": 0.35,
    "movie_ratings": 1.0,
    "amazon_ratings": 0.5,
    "nyt_ratings": 0.25,
    "tweet_ratings": 0.25,
}


def documents(world: World, seed: int = 0) -> list[str]:
    """Every document of the pretraining corpus, in the order of reading. ``seed`` draws
    wordings, texts and order."""
    texts = [*paragraphs(world, seed), *skills.statements(SKILL_PARAGRAPHS, seed)]
    texts += prose(seed)
    rng = stream(seed, "order of documents")
    return [texts[i] for i in rng.permutation(len(texts))]


def prose(seed: int = 0) -> list[str]:
    """Real texts: comments and passages of the Bible, drawn by ``seed``."""
    rng = stream(seed, "prose")
    texts: list[str] = []
    for name, share in PROSE.items():
        rows = sources.load(name)["text"][:]  # at once: far faster than one by one
        passages = [" ".join(text.split()) for text in rows]
        if name == "bible_bbe":  # single verses are too short
            passages = list(_joined(passages))
        keep = rng.permutation(len(passages))[: round(share * len(passages))]
        texts += [passages[i] for i in keep]
    return texts


def _joined(verses: list[str], longest: int = 700) -> Iterator[str]:
    """Consecutive verses joined to passages of at most ``longest`` characters."""
    passage = ""
    for verse in verses:
        if passage and len(passage) + len(verse) > longest:
            yield passage
            passage = ""
        passage = f"{passage} {verse}".strip()
    if passage:
        yield passage


def pack(documents: list[str], tokenizer, length: int = 256) -> np.ndarray:
    """The documents as rows of tokens, (rows, length), each document followed by the
    EOS token. The last incomplete row is dropped.

    Args:
        documents: texts.
        tokenizer: one that merges nothing across a space, such as byte-level BPE.
        length: tokens in a row.
    """
    # Half a million documents share some sixty thousand words: each is encoded once.
    number: dict[str, int] = defaultdict(count().__next__)  # of each word
    stream = array("i")
    for text in documents:
        stream.extend(map(number.__getitem__, (*_words(text), "")))  # "" stands for EOS
    encoded = tokenizer(list(number), add_special_tokens=False)["input_ids"]
    encoded[number[""]] = [tokenizer.eos_token_id]
    tokens = chain.from_iterable(map(encoded.__getitem__, stream))
    flat = np.fromiter(tokens, np.int16)
    rows = len(flat) // length
    return flat[: rows * length].reshape(rows, length)


# A word with the spaces before it, or the spaces at the end of a text: the tokenizer
# merges nothing across the start of such a piece.
_words = re.compile(r" *[^ ]+| +").findall
