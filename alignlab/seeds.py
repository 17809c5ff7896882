"""Named random streams: every draw says what it is for, and no two names share
numbers."""

import hashlib

import numpy as np

WORDS = 8  # of 32 bits in a stream's key, always as many


def stream(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """Random numbers that depend on the seed, the name and the numbers alone.

    Args:
        seed: of the run: the unit of replication, 0 or more.
        name: what is drawn, in words ("preference pairs"). Another name is another
            stream, independent of this one at every seed.
        numbers: which of several draws under that name (an update, an epoch).

    Raises:
        ValueError: if the seed is negative.

    The key is a digest of fixed length. Integers side by side would not do: numpy pads
    them with zeros, so that ``default_rng([seed, 0])`` and ``default_rng(seed)`` draw
    the same numbers.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    return np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=_key(name, numbers))
    )


def torch_seed(seed: int, name: str, *numbers: int) -> int:
    """A seed for torch's generators, drawn from :func:`stream`."""
    return int(stream(seed, name, *numbers).integers(2**63))


def _key(name: str, numbers: tuple[int, ...]) -> tuple[int, ...]:
    text = "\0".join([name, *map(str, numbers)])
    digest = hashlib.sha256(text.encode()).digest()
    return tuple(np.frombuffer(digest, dtype="<u4").tolist()[:WORDS])
