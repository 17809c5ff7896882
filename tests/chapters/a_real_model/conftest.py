"""Rated sentences made up for the tests, in place of the archive's."""

import pytest

from alignlab.chapters.a_real_model import reviews

OPENINGS = ("A film", "This story", "Every scene", "The whole cast", "Such acting")
ENDINGS = {
    "shines with real warmth": 3,
    "moves along pleasantly": 1,
    "drags without purpose": -1,
    "fails completely": -3,
}


def made_up():
    """100 sentences of four worths, each with 12 raters who scatter by one."""
    rows = []
    for number in range(100):
        ending, worth = list(ENDINGS.items())[number % 4]
        text = f"{OPENINGS[number % 5]} number{number} {ending}."
        rows.append((text, [worth + (k % 3) - 1 for k in range(12)]))
    return rows


@pytest.fixture(autouse=True)
def sentences(monkeypatch):
    rows = made_up()

    def load(name):
        if name == "movie_ratings":
            return {"text": [t for t, _ in rows], "ratings": [r for _, r in rows]}
        return {"text": ["nothing at all"], "mean": [0.0]}

    monkeypatch.setattr(reviews.sources, "load", load)
    monkeypatch.setattr(reviews, "SHOWN", 30)
    monkeypatch.setattr(reviews, "COMPARED", 30)
    reviews.draw_parts.cache_clear()
    reviews._short_sentences.cache_clear()
    yield
    reviews.draw_parts.cache_clear()
    reviews._short_sentences.cache_clear()
