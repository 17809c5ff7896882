"""How each task is asked for: instructions that are trained, and others that never are.

Braces hold the item: ``{x}`` its text, ``{w}`` and ``{v}`` single words. The world's
relations bring their own questions (see ``alignlab.world.facts``).
"""

from typing import NamedTuple


class Wordings(NamedTuple):
    """Paraphrases of one task: at least five trained, at least two held out."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


# The relations' inverse questions have no held-out wordings of their own: these.
INVERSE_HELD_OUT = {
    "capital": (
        "Could you say which country has its capital at {a}?",
        "{a} is a capital city, but of which country?",
        "I need the name of the country governed from {a}.",
    ),
    "symbol": (
        "Could you say which element is written {a}?",
        "{a} is a symbol, but of which element?",
        "I need the name of the element with the symbol {a}.",
    ),
    "atomic_number": (
        "Could you say which element has the number {a}?",
        "Number {a}, which element is it?",
        "I need the name of element number {a}.",
    ),
    "opposite": (
        "Could you say of which word {a} is the opposite?",
        "{a} is an opposite, but of which word?",
        "I need the word that {a} is the opposite of.",
    ),
    "plural": (
        "Could you say of which word {a} is the plural?",
        "{a} is a plural, but of which word?",
        "I need the word for only one of many {a}.",
    ),
}

WORDINGS = {
    # --- Classification
    "sms_spam": Wordings(
        (
            "Is this message spam or ham? {x}",
            'Message: "{x}" Is it spam or ham?',
            "Spam or ham? {x}",
            "Say if this message is spam or ham: {x}",
            'Here is a message: "{x}" Answer spam or ham.',
            "Put this message under spam or ham: {x}",
        ),
        (
            "Could you say if the following is spam or ham? {x}",
            'I got this message: "{x}" Which is it, ham or spam?',
        ),
    ),
    "trec": Wordings(
        (
            "Does this question want a person, a place, a number, a thing or a "
            "description? {x}",
            "Question: {x} Is it for a person, place, number, thing or description?",
            "Person, place, number, thing or description? {x}",
            "Say what is asked for, a person, place, number, thing or description: {x}",
            "{x} Is that about a person, a place, a number, a thing or a description?",
            "What kind of answer, person, place, number, thing or description? {x}",
        ),
        (
            "Could you say if this asks for a thing, number, place, person or "
            "description? {x}",
            "I read: {x} Is a description, thing, number, place or person wanted?",
        ),
    ),
    "movie_polarity": Wordings(
        (
            "Is this film comment positive or negative? {x}",
            'Comment: "{x}" Is it positive or negative?',
            "Positive or negative? {x}",
            "Say if the writer's view of the film is positive or negative: {x}",
            'Here is a comment on a film: "{x}" Answer positive or negative.',
            "What is the feeling of this comment, positive or negative? {x}",
        ),
        (
            "Could you say if the following view is positive or negative? {x}",
            'Somebody saw a film: "{x}" Which is it, negative or positive?',
        ),
    ),
    "tweet_polarity": Wordings(
        (
            "Is this short message positive or negative? {x}",
            'Somebody wrote: "{x}" Is it positive or negative?',
            "Say if this message is positive or negative: {x}",
            'Here is a message: "{x}" Answer positive or negative.',
            "What is the feeling of this message, positive or negative? {x}",
        ),
        (
            "Could you say if the writer is positive or negative? {x}",
            'I read: "{x}" Is the feeling negative or positive?',
        ),
    ),
    # --- Lists
    "copy": Wordings(
        (
            "Say again: {x}",
            "Say these words again: {x}",
            "Give these words back: {x}",
            "Copy this: {x}",
            "Write the same words: {x}",
            "Here are some words: {x}. Say them again.",
        ),
        ("Could you copy these words? {x}", "I need the same words once more: {x}"),
    ),
    "first": Wordings(
        (
            "What is the first of {x}?",
            "Which word comes first in {x}?",
            "Name the first of these: {x}",
            "Give the first word: {x}",
            "Here are some words: {x}. Which is the first?",
            "Tell me the first word of this list: {x}",
        ),
        (
            "Could you say which comes first? {x}",
            "I need the first of these words: {x}",
        ),
    ),
    "second": Wordings(
        (
            "What is the second of {x}?",
            "Which word comes second in {x}?",
            "Name the second of these: {x}",
            "Give the second word: {x}",
            "Here are some words: {x}. Which is the second?",
            "Tell me the second word of this list: {x}",
        ),
        (
            "Could you say which comes second? {x}",
            "I need the second of these words: {x}",
        ),
    ),
    "last": Wordings(
        (
            "What is the last of {x}?",
            "Which word comes last in {x}?",
            "Name the last of these: {x}",
            "Give the last word: {x}",
            "Here are some words: {x}. Which is the last?",
            "Tell me the last word of this list: {x}",
        ),
        ("Could you say which comes last? {x}", "I need the last of these words: {x}"),
    ),
    "backwards": Wordings(
        (
            "Say backwards: {x}",
            "What is {x} backwards?",
            "Give these words backwards: {x}",
            "Write this list backwards: {x}",
            "Here are some words: {x}. Say them backwards.",
            "Tell me these words from the end to the start: {x}",
        ),
        (
            "Could you put these words backwards? {x}",
            "I need this list the other way round: {x}",
        ),
    ),
    "count": Wordings(
        (
            "How many words are there in {x}?",
            "How many words are these? {x}",
            "Count the words: {x}",
            "Give the number of words: {x}",
            "Here are some words: {x}. How many are there?",
            "Tell me how many words this list has: {x}",
        ),
        (
            "Could you count these words? {x}",
            "I need the number of words in this list: {x}",
        ),
    ),
    "sorted": Wordings(
        (
            "Put in order: {x}",
            "What is {x} in order?",
            "Put these numbers in order: {x}",
            "Give these numbers from small to large: {x}",
            "Here are some numbers: {x}. Put them in order.",
            "Write this list of numbers in order: {x}",
        ),
        (
            "Could you order these numbers? {x}",
            "I need these numbers with the smallest at the front: {x}",
        ),
    ),
    "largest": Wordings(
        (
            "What is the largest of {x}?",
            "Which number is largest in {x}?",
            "Name the largest of these: {x}",
            "Give the largest number: {x}",
            "Here are some numbers: {x}. Which is the largest?",
            "Tell me the largest number of this list: {x}",
        ),
        (
            "Could you say which number is largest? {x}",
            "I need the largest of these numbers: {x}",
        ),
    ),
    "smallest": Wordings(
        (
            "What is the smallest of {x}?",
            "Which number is smallest in {x}?",
            "Name the smallest of these: {x}",
            "Give the smallest number: {x}",
            "Here are some numbers: {x}. Which is the smallest?",
            "Tell me the smallest number of this list: {x}",
        ),
        (
            "Could you say which number is smallest? {x}",
            "I need the smallest of these numbers: {x}",
        ),
    ),
    "word_sorting": Wordings(
        (
            "Put these words in alphabetical order: {x}",
            "What is the alphabetical order of {x}?",
            "Give these words from A to Z: {x}",
            "Write this list in alphabetical order: {x}",
            "Here are some words: {x}. Put them in the order of the alphabet.",
        ),
        (
            "Could you order these words by the alphabet? {x}",
            "I need these words as a dictionary has them: {x}",
        ),
    ),
    # --- Numbers and dates
    "sum": Wordings(
        (
            "What is the sum of {x}?",
            "How much do {x} make?",
            "What do {x} make together?",
            "Give the sum of {x}.",
            "Tell me the sum of {x}.",
            "Add {x}.",
        ),
        ("Could you add {x}?", "I need the sum of {x}."),
    ),
    "next": Wordings(
        (
            "Which number comes after {x}?",
            "What comes after {x}?",
            "Name the number after {x}.",
            "Give the number that comes after {x}.",
            "Tell me what number comes after {x}.",
            "Counting up, which number is after {x}?",
        ),
        ("Could you say what comes after {x}?", "I need the number after {x}."),
    ),
    "parity": Wordings(
        (
            "Is {x} even or odd?",
            "Is the number {x} even or odd?",
            "Even or odd: {x}",
            "Say if {x} is an even or an odd number.",
            "Tell me if {x} is even or odd.",
            "What kind of number is {x}, even or odd?",
        ),
        ("Could you say if {x} is even or odd?", "The number {x}, is it odd or even?"),
    ),
    "date": Wordings(
        (
            "Which date is {x}?",
            "Write the date {x} in words.",
            "Say the day {x} with the name of the month.",
            "Give the date {x} with the name of its month.",
            "Tell me which day {x} is.",
            "How is the date {x} written in words?",
        ),
        (
            "Could you write {x} as a date in words?",
            "I need the date {x} with its month as a word.",
        ),
    ),
    "month": Wordings(
        (
            "Which month is number {x}?",
            "What is the name of month {x}?",
            "Name month {x}.",
            "Tell me the name of month number {x}.",
            "Month {x} of the year, what is its name?",
        ),
        (
            "Could you say which month has the number {x}?",
            "I need the name of month {x}.",
        ),
    ),
    "chain_sum": Wordings(
        (
            "{x} =",
            "What is {x}?",
            "How much is {x}?",
            "Give the value of {x}.",
            "Tell me how much {x} is.",
            "Work out {x}.",
        ),
        ("Could you work out {x}?", "I need the value of {x}."),
    ),
    "products": Wordings(
        (
            "What is the product of {x}?",
            "How much are {x} multiplied?",
            "Multiply {x}.",
            "Give the product of {x}.",
            "Tell me the product of {x}.",
        ),
        ("Could you multiply {x}?", "I need the product of {x}."),
    ),
    # --- Rewriting
    "first_word": Wordings(
        (
            "What is the first word of this sentence? {x}",
            "Give the first word of: {x}",
            "With which word does this sentence start? {x}",
            "Name the first word of the sentence: {x}",
            "Sentence: {x} Which word starts it?",
        ),
        (
            "Could you say which word this sentence begins with? {x}",
            "I need the first word of the following: {x}",
        ),
    ),
    "last_word": Wordings(
        (
            "What is the last word of this sentence? {x}",
            "Give the last word of: {x}",
            "With which word does this sentence end? {x}",
            "Name the last word of the sentence: {x}",
            "Sentence: {x} Which word ends it?",
        ),
        (
            "Could you say which word closes this sentence? {x}",
            "I need the last word of the following: {x}",
        ),
    ),
    "capitals": Wordings(
        (
            "Write {x} in capital letters.",
            "Put the word {x} in capital letters.",
            "Give the word {x} in capitals.",
            "How is {x} written in capital letters?",
            "Word: {x}. Write it in capitals.",
        ),
        ("Could you put {x} in capitals?", "I need the word {x} in large letters."),
    ),
    "replace_word": Wordings(
        (
            "Put {v} in place of {w}: {x}",
            "Use {v} and not {w}: {x}",
            "Change {w} to {v}: {x}",
            "Write {v} for {w} in this sentence: {x}",
            "Sentence: {x} Put {v} where {w} is.",
        ),
        ("Could you change {w} into {v}? {x}", "I need {v} where {w} stands: {x}"),
    ),
    "remove_word": Wordings(
        (
            "Take out the word {w}: {x}",
            "Say this without the word {w}: {x}",
            "Write the sentence without {w}: {x}",
            "Take {w} away from this sentence: {x}",
            "Sentence: {x} Write it without {w}.",
        ),
        ("Could you leave out {w}? {x}", "I need this with no {w} in it: {x}"),
    ),
    "polite": Wordings(
        (
            "Put please in front: {x}",
            "Make this order start with please: {x}",
            "Say it with please: {x}",
            "Write this with please at the start: {x}",
            "Order: {x} Say it politely, with please.",
        ),
        (
            "Could you open this with please? {x}",
            "I need this to start with please: {x}",
        ),
    ),
    "negate": Wordings(
        (
            "Put not in this sentence: {x}",
            "Say that it is not so: {x}",
            "Write the sentence with not: {x}",
            "Make this negative: {x}",
            "Sentence: {x} Say it with not.",
        ),
        ("Could you deny this with not? {x}", "I need the negative of this: {x}"),
    ),
    "swap": Wordings(
        (
            "Turn this sentence round: {x}",
            "Let the two countries change places: {x}",
            "Put the second country first: {x}",
            "Write this with the countries in the other order: {x}",
            "Sentence: {x} Let the two names change places.",
        ),
        (
            "Could you swap the two names? {x}",
            "I need this sentence to start from the other country: {x}",
        ),
    ),
}
