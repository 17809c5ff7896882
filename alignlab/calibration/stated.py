"""Reading a confidence that a language model states in words: one number, or NaN.

A reply is read in three steps: its notation is made plain, every number in it becomes a
:class:`Stated` probability or is left out, and one of these is chosen.
"""

import math
import re
import unicodedata
from typing import NamedTuple

NAN = math.nan
NEAR = 120  # characters before and after a number that may say what it is


class Stated(NamedTuple):
    """A number of the reply as a probability; NaN where it says none that is clear."""

    value: float
    rank: int  # 0 said to be the confidence, 1 per cent, 2 ratio, 3 a decimal fraction


def parse_confidence(text: str) -> float:
    """The probability that a reply states, from 0 to 1; NaN if it states none, or not
    clearly one.

    Read are percentages ("85%", "85,5 %", "85 percent", "eighty percent"), ratios
    ("8/10", "8 out of 10"), decimal fractions ("0.85", ".85"), and bare numbers where
    the reply is nothing else ("85") or says what they are ("Confidence: 85"). A bare
    number is a probability up to 1 and a percentage from above 10 to 100. From above 1
    to 10 it could be a percentage or a mark, so it is NaN, unless the reply names the
    scale ("on a scale of 1 to 10: 8"). A range is its middle ("90-95%", "between 70 and
    80%").

    Of several numbers, those said to be the confidence win ("Confidence: 80%", "80%
    sure", "p = 0.8", a boxed number), then percentages, then ratios, then fractions. If
    the best of them differ, the result is NaN. Other numbers, such as years, do not
    count.

    NaN also: a number that is denied ("not 100%"; "80% sure that it is not" is 0.8), a
    bound ("over 90%", "at most 5%"), a probability of being wrong ("20% unsure"), one
    outside [0, 1] ("150%", "-5%"), and words without a number ("certain", "very
    likely"), for whose values there is no convention.
    """
    plain, scale = _without_scale(_plain(text))
    if match := re.fullmatch(rf"{FILLER}(?<!\.)({RANGE}){FILLER}", plain):
        return _unmarked(match[1], scale)
    stated = [s for m in TERM.finditer(plain) if (s := _read(plain, m, scale))]
    if not stated:
        return NAN
    best = min(s.rank for s in stated)
    values = [s.value for s in stated if s.rank == best]
    same = all(math.isclose(v, values[0], abs_tol=1e-9) for v in values)
    return values[0] if same else NAN


# --- Plain notation ---------------------------------------------------------------

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen"
ONES = (ONES + " fourteen fifteen sixteen seventeen eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
WORDS = {word: number for number, word in enumerate(ONES)}
WORDS |= {word: 10 * number for number, word in enumerate(TENS, start=2)}
WORDS |= {f"{t}-{o}": WORDS[t] + WORDS[o] for t in TENS for o in ONES[1:10]}
WORDS |= {"hundred": 100, "a hundred": 100, "one hundred": 100}
IN_WORDS = "|".join(sorted(WORDS, key=len, reverse=True))
PERCENT = r"(?:%|per ?cents?\b|pct\b|percentage points?\b)"


def _plain(text: str) -> str:
    """Lower case, without markup and reasoning, with digits for words."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = text.rsplit("</think>", 1)[-1]
    text = re.sub(r"\\boxed\s*\{([^{}]*)\}", r" confidence: \1 ", text)
    text = re.sub(r"</?([a-z_]+)>", r" \1: ", text)  # <confidence>0.9</confidence>
    text = re.sub(r"\\text\s*\{([^{}]*)\}|\\[()\[\]]", r"\1", text)
    text = re.sub(r"\$([^$\n]{1,40})\$", r"\1", text)
    text = re.sub(r"[*`_#\"“”]|\\(?=%)", " ", text).replace("’", "'")
    text = re.sub(r"\bper cent\b", "percent", text.replace("٪", "%"))
    text = re.sub(r"(?<=[\d%])\s*[‐-―−〜~]\s*(?=[\d.])", "-", text)
    between = r"\bbetween ([\d.,]+\s*%?(?: ?percent)?) and (?=[\d.])"
    text = re.sub(between, r"\1-", text)
    text = re.sub(r"(^|\n)\s*[-•·]\s+", r"\1", text)  # bullets
    text = re.sub(r"[–—―]", " - ", text).replace("−", "-").replace("⁄", "/")
    text = re.sub(r"\bfifty[- /]fifty\b|\b50\s*[/-]\s*50\b(?!\s*%)", " 50% ", text)
    text = re.sub(rf"\b({'|'.join(TENS)}) (?=({'|'.join(ONES[1:10])})\b)", r"\1-", text)
    counted = (
        rf"\b({IN_WORDS})(?=\s*(?:{PERCENT}|out of|in (?:ten|10|a hundred|100)\b))"
    )
    text = re.sub(counted, lambda m: str(WORDS[m[1]]), text)
    after = rf"(?<=out of )({IN_WORDS})\b|(?<=\d in )(ten|a hundred)\b"
    text = re.sub(after, lambda m: str(WORDS[m[1] or m[2]]), text)
    return re.sub(r"\s+", " ", re.sub(r"\n+", " ; ", text.strip()))


def _without_scale(text: str) -> tuple[str, float | None]:
    """The text without a scale that it names, and the upper end of that scale."""
    scale = None
    ends = rf"[01]%? ?(?:-|to|and) ?(100|10|1)(?!\d) ?{PERCENT}?"
    for pattern in (
        rf"(?:on )?(?:a |the )?scale (?:of|from|between) {ends}",
        rf"[(\[] ?(?:from |between )?{ends} ?[)\]]",
    ):
        if match := re.search(pattern, text):
            scale = float(match[1])
            text = text[: match.start()] + " " + text[match.end() :]
    if match := re.search(r"[(\[] ?(?:in )?(?:%|percent) ?[)\]]", text):
        scale = 100.0
        text = text[: match.start()] + " " + text[match.end() :]
    return re.sub(r"\s+", " ", text).strip(), scale


# --- Numbers ----------------------------------------------------------------------

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+[.,]\d+|\d+|\.\d+)(?:e-?\d+)?"
JOINED = r"\s*(?:-|to|or)\s*"
RANGE = rf"-?{NUMBER}(?:{JOINED}{NUMBER})?"
TERM = re.compile(
    rf"(?P<sign>(?:(?<=[\s(\[:=,;])|^)-)?(?<![\w.,/$€£])(?<!\w-)"
    rf"(?P<low>{NUMBER})\s*(?P<first>{PERCENT})?"
    rf"(?:(?P<joint>{JOINED})(?P<high>{NUMBER})(?!\w))?"
    rf"\s*(?:(?P<percent>{PERCENT})|(?:(?P<slash>/)|(?P<words>out of|in))\s*"
    rf"(?P<whole>{NUMBER})(?![\d/]))?"
    rf"(?P<error>\s*(?:±|\+/-|\+-)\s*{NUMBER}\s*{PERCENT}?)?"
)
ABOUT = r"(?:about|around|approximately|approx|roughly|circa|~|≈|maybe|perhaps|some)"
FILLER = rf"(?:{ABOUT}|i'd|would|i|say|think|it's|it|is|[\s.;:!()\[\]{{}}'])*"
NOUN = (
    r"(?:confidence|probability|likelihood|certainty|credence|chances?|"
    r"p ?\([^()]{0,40}\)|p)"
)
SAID_BEFORE = re.compile(
    rf"\b{NOUN}(?: (?:level|score|estimate|rating|value|here|that it is (?:true|right|"
    rf"correct)))?(?:['\s:=>|({{\[-]|\b(?:is|are|of|at|as|be|would|it|i'd|i|say|put|a|"
    rf"between|from|my|in this(?: answer)?|in my answer|in the answer)\b|{ABOUT})*$"
)
SAID_AFTER = re.compile(
    rf"^[\s'-]*(?:(?:that|i'm|i am|of being) )?(?:sure|certain|confident|likely|{NOUN})"
    r"\b"
)
CLAUSE = re.compile(r"[,.;:!?()]\s|[,;:(]|\b(?:but|however|though|yet|rather)\b| - ")
DENIED = re.compile(
    r"(?:\b(?:not|no|nothing|never|cannot|hardly|neither|nor|without)\b|n't\b)"
)
BOUND = re.compile(
    r"(?:\b(?:over|above|below|under|"
    r"(?:more|less|fewer|greater|higher|lower)(?: \w+)? than|"
    r"at least|at most|up to|no more than|no less than|exceeds?|exceeding|minimum of|"
    r"maximum of|upwards of)|[<>≤≥]=?)\s*(?:about|around|a|the|or equal to)?\s*$"
)
BOUND_AFTER = re.compile(
    r"^\s*(?:\+(?!/)|or (?:more|less|higher|lower|above|below|greater|over|under)|"
    r"(?:and|&) (?:above|up|below|over))"
)
WRONG = (
    r"(?:unsure|uncertain\w*|doubt\w*|wrong|incorrect|false|unlikely|mistaken|errors?)"
)
WRONG_BEFORE = re.compile(r"\b(?:uncertainty|doubt|error)\b[\s:=\w]{0,12}$")
WRONG_AFTER = re.compile(
    rf"^[\s'-]*(?:{WRONG}\b|(?:{NOUN}|likely)\b[^,.;]{{0,40}}\b(?:{WRONG}|not|n't)\b|"
    rf"not\b|chance of (?:being )?{WRONG}|of (?!being|the time|confidence|certainty))"
)
UNIT = re.compile(
    r"^\s*(?:[a-z]?m|km|kg|g|cm|mm|mi|miles?|met(?:er|re)s?|feet|ft|s|ms|seconds?|"
    r"minutes?|hours?|days?|years?|million|billion|thousand|°|usd|dollars?|euros?)\b"
)


def _number(text: str) -> float:
    """With a decimal point or comma; commas before three digits group them."""
    if re.match(r"[1-9]\d{0,2}(?:,\d{3})+(?!\d)", text):
        text = text.replace(",", "")
    return float(text.replace(",", "."))


def _middle(low: str, high: str | None, joint: str | None) -> float:
    if high is None:
        return _number(low)
    if joint.strip() == "or":
        return NAN
    return (_number(low) + _number(high)) / 2


def _inside(value: float) -> float:
    return value if 0 <= value <= 1 else NAN


def _unmarked(text: str, scale: float | None) -> float:
    """A number that has no unit, or a range of them."""
    match = re.fullmatch(rf"(-?)({NUMBER})(?:({JOINED})({NUMBER}))?", text)
    sign, low, joint, high = match.groups()
    value = _middle(low, high, joint)
    if sign:
        return NAN
    if scale is not None:
        return _inside(value / scale)
    largest = max(map(_number, (low, high or low)))
    if largest <= 1:
        return _inside(value)
    return _inside(value / 100) if min(map(_number, (low, high or low))) > 10 else NAN


def _read(text: str, match: re.Match, scale: float | None) -> Stated | None:
    """What one number of the reply says; None if that is no confidence."""
    before = text[max(match.start() - NEAR, 0) : match.start()]
    after = text[match.end() : match.end() + NEAR]
    labelled = bool(SAID_BEFORE.search(before))
    if UNIT.search(after) and not match["percent"]:
        return None
    clause = CLAUSE.split(before)[-1]
    bound = BOUND.search(before) or BOUND_AFTER.search(after)
    if DENIED.search(clause) and not bound and not labelled:
        return None  # what it is not says nothing of what it is
    value, rank = _value(match, labelled, scale)
    if rank is None or _is_share_of_something(after, labelled, match):
        return None
    unclear = bound or WRONG_BEFORE.search(before) or WRONG_AFTER.search(after)
    value = NAN if unclear or match["sign"] else value
    is_stated = labelled or (SAID_AFTER.search(after) and _has_form(match))
    return Stated(value, 0 if is_stated else rank)


def _is_share_of_something(after: str, labelled: bool, match: re.Match) -> bool:
    """As in "75% of the crew"."""
    ours = r"^\s*of (?!being|the time|confidence|certainty)"
    return not labelled and bool(re.search(ours, after))


def _has_form(match: re.Match) -> bool:
    marked = match["percent"] or match["first"] or match["whole"]
    return bool(marked) or any(mark in match["low"] for mark in ".,")


def _value(match: re.Match, labelled: bool, scale) -> tuple[float, int | None]:
    """The probability and its rank; None for a number that is not meant as one."""
    middle = _middle(match["low"], match["high"], match["joint"])
    if match["whole"]:
        whole = _number(match["whole"])
        if match["words"] == "in" and whole not in (10, 100, 1000):
            return NAN, None
        ratio = middle / whole if whole else NAN
        odds = whole + middle == 100 and middle > 0  # 70/30: parts, or a ratio?
        return (NAN if odds else _inside(ratio)), 2
    if match["percent"] or match["first"]:
        return _inside(middle / 100), 1
    numbers = match["low"] + (
        f"{match['joint']}{match['high']}" if match["high"] else ""
    )
    if labelled:
        return _unmarked(numbers, scale), 0
    is_fraction = all(
        any(mark in part for mark in ".,") and _number(part) <= 1
        for part in (match["low"], match["high"] or match["low"])
    )
    value = _unmarked(numbers, scale)
    meant = is_fraction or scale is not None and not math.isnan(value)
    return value, 3 if meant else None
