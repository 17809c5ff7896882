"""A reply that the kernel's socket announced to nobody is found all the same, and what
a cell prints has an end."""

import asyncio
from queue import Empty

import pytest

from alignlab.runs import engine
from alignlab.runs.engine import CUT, LOOK_AGAIN, Client, look_again, size_of


def asked(*answers):
    """A channel that gives these answers one after the other, None for no message."""
    waits, left = [], list(answers)

    async def get_msg(timeout):
        waits.append(timeout)
        answer = left.pop(0)
        if answer is None:
            raise Empty
        return answer

    return get_msg, waits


def test_without_a_timeout_a_message_is_asked_for_until_it_comes():
    get_msg, waits = asked(None, None, {"msg_type": "execute_reply"})
    found = asyncio.run(look_again(get_msg))
    assert found == {"msg_type": "execute_reply"} and waits == [LOOK_AGAIN] * 3


def test_a_timeout_is_kept():
    get_msg, waits = asked(None, {"msg_type": "too late"})
    with pytest.raises(Empty):
        asyncio.run(look_again(get_msg, timeout=0.5))
    assert waits == [0.5]


# --- Outputs without measure ----------------------------------------------------------


@pytest.fixture
def client(monkeypatch):
    """A client that keeps 10 characters of each cell."""
    monkeypatch.setattr(engine, "OUTPUT_LIMIT", 10)
    client = Client.__new__(Client)
    client.clear_before_next_output = False
    client._kept, client._display_id_map = {}, {}
    client.output_hook_stack = {None: []}
    return client


def message(kind, **content):
    return {
        "msg_type": kind,
        "header": {"msg_type": kind},
        "parent_header": {"msg_id": None},
        "content": content,
    }


def printed(text):
    return message("stream", name="s", text=text)


def test_the_beginning_of_what_a_cell_prints_is_kept_and_the_cut_is_told(client):
    outs = []
    for text in ("abcd", "efghijk", "l", "m"):  # the stream's name counts too
        client.output(outs, printed(text), None, 0)
    assert [out.text for out in outs] == ["abcd", "efghi" + CUT]
    other = []
    client.output(other, printed("n"), None, 1)
    assert [out.text for out in other] == ["n"], "each cell has room of its own"


def test_what_is_cleared_does_not_count(client):
    outs = []
    for wait in (False, True):
        for _ in range(5):
            client.output(outs, printed("abcdefgh"), None, 0)
            client.clear_output(outs, message("clear_output", wait=wait), 0)
    client.output(outs, printed("abcdefgh"), None, 0)
    assert [out.text for out in outs] == ["abcdefgh"]


def test_a_page_that_is_too_large_is_left_out_and_an_exception_shortened(
    client, monkeypatch
):
    monkeypatch.setattr(engine, "LINE_LIMIT", 3)
    outs = []
    page = message("display_data", data={"text/html": "x" * 20}, metadata={})
    client.output(outs, page, "display", 0)
    client.output(outs, printed("more"), None, 0)
    error = dict(ename="E", evalue="x" * 20, traceback=["y" * 20, "z"])
    client.output(outs, message("error", **error), None, 0)
    assert [out.output_type for out in outs] == ["stream", "error"]
    assert outs[0].text == CUT and outs[1].evalue == "xxx"
    assert outs[1].traceback == ["yyy", "z"]
    assert client._display_id_map == {}


def test_sizes_count_all_text():
    assert size_of({"a": "12", "b": ["345", {"c": "6"}], "d": 7, "e": None}) == 6
