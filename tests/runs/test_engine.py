"""A reply that the kernel's socket announced to nobody is found all the same."""

import asyncio
from queue import Empty

import pytest

from alignlab.runs.engine import LOOK_AGAIN, look_again


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
