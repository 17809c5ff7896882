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
from pathlib import Path

import pytest

from alignlab.data import readers, sources
from alignlab.errors import AlignlabError
from tests.data.toy import WHEEL, cached, pinned

SHARED = Path(__file__).parents[3] / "shared" / "data"


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
    monkeypatch.setattr(sources, "pip_download", no_download)
    monkeypatch.setattr(sources.hashlib, "file_digest", no_download)
    assert sources.fetch("toy-source").exists()


def test_archive_put_there_by_hand_is_verified_then_remembered(toy, index, monkeypatch):
    cached(toy).parent.mkdir(parents=True)
    cached(toy).write_bytes((index / WHEEL).read_bytes())
    monkeypatch.setattr(sources, "pip_download", no_download)
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

    monkeypatch.setattr(sources, "pip_download", other_bytes)
    with pytest.raises(AlignlabError, match="not the pinned file"):
        sources.fetch("toy-source")
    assert not cached(toy).exists()


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["pip_download", "os.replace", "FileLock"])
def test_full_disk_says_how_much_and_where(toy, monkeypatch, where):
    owner = sources.os if "." in where else sources
    monkeypatch.setattr(owner, where.removeprefix("os."), full_disk)
    with pytest.raises(AlignlabError, match=r"disk is full.* MB") as error:
        sources.fetch("toy-source", progress=False)
    assert str(cached(toy).parent) in error.value.message
    assert "ALIGNLAB_CACHE" in error.value.remedy
    assert not cached(toy).exists()


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
        from alignlab.data import pins, sources

        sources.SOURCES["toy-source"] = pins.{source!r}

        def slow_download(source, folder, progress):
            with open({str(log)!r}, "a") as log:
                log.write("download\\n")
            content = Path({str(index / WHEEL)!r}).read_bytes()
            with (folder / source.filename).open("wb") as file:
                file.write(content[:100])
                file.flush()
                time.sleep({seconds})
                file.write(content[100:])

        sources.pip_download = slow_download
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


def test_cards_name_known_sources_and_their_own_columns():
    for name, card in sources.DATASETS.items():
        assert card.name == name and card.key in card.columns
        assert card.source == "hub" or card.source in sources.SOURCES
        assert card.source != "hub" or card.hub_id
        assert card.licence and card.provenance


def test_hub_set_with_both_splits_keeps_its_own(monkeypatch):
    import datasets

    def preference(n):
        start = f"\n\nHuman: question {n}\n\nAssistant:"
        return {"chosen": f"{start} yes", "rejected": f"{start} no"}

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
    card, data = sources.DATASETS[name], real(name)
    assert len(data) == card.rows
    assert set(data.column_names) == set(card.columns)
    for column in {"text", "prompt", "completion"} & set(data.column_names):
        if name != "hh_rlhf":  # conversations: lists of messages
            assert data.features[column].dtype == "string"
        empty = [row for row in data[column] if not row]
        assert len(empty) == (1 if (name, column) == ("xsum", "prompt") else 0)
    if name in SET_LABELS:
        counts = {label: data["label"][:].count(label) for label in SET_LABELS[name]}
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
