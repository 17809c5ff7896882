"""What language models write when asked for a confidence, and what it says."""

import math
import time

import pytest

from alignlab.calibration.elicitation import parse_confidence

NONE = math.nan

TABLE = {
    "percentages": """
        85% = 0.85 | 80 % = 0.8 | about 80 % = 0.8 | ~80% = 0.8 | 80 percent = 0.8
        80 per cent = 0.8 | 80 pct = 0.8 | 85,5% = 0.855 | 99.99% = 0.9999
        0.5% = 0.005
        ８５％ = 0.85 | **90%** = 0.9 | $90\\%$ = 0.9 | \\boxed{90\\%} = 0.9
        - 85% = 0.85
        0% = 0 | 100% = 1 | 1% = 0.01 | fifty percent = 0.5 | ninety-five percent = 0.95
        ninety five percent = 0.95 | a hundred percent = 1 | 80% ± 5% = 0.8
        I would say 85%. = 0.85 | Paris (90%) = 0.9 | almost 100% = 1 | No, 80% = 0.8
    """,
    "ratios": """
        8/10 = 0.8 | 8 out of 10 = 0.8 | 80/100 = 0.8 | Confidence: 0.9/1 = 0.9
        9 in 10 = 0.9 | nine out of ten = 0.9 | 9.5/10 = 0.95
        7-8/10 = 0.75 | 1/2 = 0.5
        50/50 = 0.5 | fifty-fifty = 0.5 | 70/30 = none | 11/10 = none | 1/0 = none
        Confidence: **85**/100 = 0.85 | 11/12/2020 = none
    """,
    "bare numbers": """
        0.8 = 0.8 | .8 = 0.8 | 0,85 = 0.85 | 1.0 = 1 | 1 = 1 | 0 = 0 | 85 = 0.85
        100 = 1 | I'd say 85. = 0.85 | p = 0.7 = 0.7 | P(True) = 0.7 = 0.7
        Probability: 70 = 0.7 | Confidence: 80 = 0.8 | \\boxed{0.9} = 0.9 | $0.9$ = 0.9
        Confidence (0-100): 85 = 0.85 | Confidence (0-1): 0.85 = 0.85
        Confidence (0-100): 1 = 0.01 | Confidence (in %): 80 = 0.8
        On a scale from 0 to 100, I'd say 85. = 0.85 | On a scale of 1 to 10: 8 = 0.8
        <confidence>0.8</confidence> = 0.8 | {"answer": "x", "confidence": 0.9} = 0.9
        8e-1 = 0.8 | 2 = none | 8 = none | 10 = none | 1.5 = none | Confidence: 8 = none
        120 = none | 1969 = none | 1,000 = none | The answer is 42 = none
        There were 12 people. = none | 0.5 km = none | $5 million = none
    """,
    "ranges are their middle": """
        90-95% = 0.925 | 90–95% = 0.925 | 70%-80% = 0.75 | 90% - 95% = 0.925
        70 to 80 percent = 0.75 | between 70 and 80% = 0.75 | between 0.7 and 0.8 = 0.75
        0.7-0.8 = 0.75 | Confidence: 90-95 = 0.925 | 80-90 = 0.85 | 70% or 80% = none
    """,
    "denied": """
        The answer is not 100% = none | I'm not 100% sure = none | isn't 90% = none
        I cannot say 90% = none | 100% not = none | not 80% but 90% = 0.9
        I am not 100% sure, but about 80% sure. = 0.8 | I am not sure. 70% = 0.7
        I'm 80% sure that it is not Paris = 0.8 | My confidence is 80%, not 90%. = 0.8
        I'm not sure but I'd say 60% = 0.6 | 80% likely that it is not Paris = none
    """,
    "bounds, the contrary, and nonsense": """
        over 90% = none | less than 5% = none | at least 80% = none | up to 80% = none
        >90% = none | ≥ 90% = none | 90%+ = none | p < 0.05 = none | 150% = none
        110% = none | -5% = none | −5% = none | Confidence: -85% = none | -0.5 = none
        less likely than 20% = none | nothing is 100% certain = none
        20% unsure = none | uncertainty: 20% = none | 5% chance of being wrong = none
        certain = none | very likely = none | Confidence: high = none | no idea = none
    """,
    "several numbers": """
        In 1969, Armstrong landed. I'm 75% sure. = 0.75
        In 1969, Apollo 11 landed: 75% = 0.75 | The year 2024: 0.75 = 0.75
        20% of people think so; my confidence is 70% = 0.7
        It is 80% water. Confidence: 0.7 = 0.7 | 75% of the crew survived = none
        Paris 70%, Lyon 30% = none | I am 60% sure. No, I am 90% sure. = none
        0.85 (85%) = 0.85 | Confidence: 80% (not 90%) = 0.8
        I am about 85 % sure, 9 times of 10. = 0.85
        <think>Maybe 20%.</think> 85% = 0.85
    """,
}
ROWS = [
    (text.strip(), NONE if value.strip() == "none" else float(value))
    for rows in TABLE.values()
    for row in rows.strip().splitlines()
    for text, _, value in (cell.rpartition("=") for cell in row.split("|"))
]


@pytest.mark.parametrize(("text", "value"), ROWS, ids=[text for text, _ in ROWS])
def test_what_models_write(text, value):
    assert parse_confidence(text) == pytest.approx(value, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("percent", range(101))
def test_every_percentage_in_every_notation(percent):
    fraction = percent / 100
    for text in (
        f"{percent}%",
        f"Confidence: {percent}%",
        f"{percent}/100",
        f"{percent} out of 100" if percent != 50 else "50%",
        f"I am {percent} percent sure.",
        f"{fraction:.2f}",
        f"Probability: {fraction:.2f}",
        f"Confidence (0-100): {percent}",
        f'{{"confidence": {fraction:.2f}}}',
        f"Answer: 42\nConfidence: {percent}%\nIn 1969, 600 million watched.",
    ):
        assert parse_confidence(text) == pytest.approx(fraction, abs=1e-12), text


def test_lines_are_read_alike():
    assert parse_confidence("Answer: Paris\nConfidence: 80\n") == pytest.approx(0.8)
    assert parse_confidence("| Confidence | 80% |") == pytest.approx(0.8)
    assert math.isnan(parse_confidence("")) and math.isnan(parse_confidence(" \n"))


def test_long_replies_are_read_quickly():
    start = time.perf_counter()
    for text in ("i'd say ", "confidence is ", "1 ", "- ", "a", "1,", "9", "(", ": "):
        parse_confidence(text * 2000)
    assert time.perf_counter() - start < 10
