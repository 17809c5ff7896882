"""Readers: what the parsers make of small files written here."""

from alignlab.data import readers


def test_split_ignores_case_and_punctuation_and_is_about_one_fifth():
    assert readers.split_of("Free entry!!") == readers.split_of("free  entry")
    sides = [readers.split_of(f"text number {i}") for i in range(5000)]
    # 5,000 draws at 1/5: standard error 0.0057, so four of them
    assert abs(sides.count("test") / 5000 - 0.2) < 0.023
    assert readers.split_of("text number 0") == sides[0]


def test_choice_row_mends_a_misplaced_line_break():
    row = readers.choice_row(
        {
            "question": "What is important\nA. newness\nB. loss of innocence",
            "options": "\nC. enlightenment\nD. open mind\nE. smartness",
            "answer": "D. open mind",
        }
    )
    assert row["question"] == "What is important"
    assert row["choices"][1:4] == ["loss of innocence", "enlightenment", "open mind"]
    assert row["completion"] == "D. open mind" and row["label"] == 3
    assert row["prompt"].splitlines()[4] == "D. open mind"


def test_choice_row_keeps_options_of_several_lines():
    row = readers.choice_row(
        {
            "question": "Which code?",
            "options": "A. x = 1\n y = 2\nB. x = 2",
            "answer": "A. x = 1\n y = 2",
        }
    )
    assert row["choices"] == ["x = 1\n y = 2", "x = 2"] and row["label"] == 0


def test_bible_reads_places_in_the_file_and_removes_marks():
    names = "\n".join(f'Book.B{i}: "Book {i}",' for i in range(1, 67))
    first, second, third = "In the beginning.", r" \\43:1\\Now *** the", " []"
    ends = [len(first), len(first + second), len(first + second + third)]
    starts = [0, *ends[:2]]
    table = "{{{}}}".format
    code = 'bible = Bible(\n    """{}""",\n{},\n{},\n{})'.format(
        first + second + third,
        table(", ".join(f"100100{i}: {s}" for i, s in enumerate(starts, 1))),
        table(", ".join(f"100100{i}: {e}" for i, e in enumerate(ends, 1))),
        table(names),
    )
    rows = readers.read_bible(lambda member: code)
    assert [row["text"] for row in rows] == ["In the beginning.", "Now the"]
    assert rows[1] == {"text": "Now the", "book": "Book 1", "chapter": 1, "verse": 2}


def test_hh_rlhf_row_parts_at_the_last_shared_turn_of_the_person():
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?"
    row = readers.hh_rlhf_row(f"{start}\n\nAssistant: A", f"{start}\n\nAssistant: B")
    assert [m["role"] for m in row["prompt"]] == ["user", "assistant", "user"]
    assert row["chosen"] == [{"role": "assistant", "content": "A"}]
    assert row["rejected"] == [{"role": "assistant", "content": "B"}]


def test_xstest_label_comes_from_the_type_where_a_copy_lacks_it():
    table = [{"prompt": "p", "type": "homonyms"}, {"prompt": "q", "type": "contrast_x"}]
    assert [r["label"] for r in readers.xstest_rows(table)] == ["safe", "unsafe"]
