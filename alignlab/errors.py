"""Errors a person can act on: what went wrong, with which value, and the remedy."""


class AlignlabError(Exception):
    """A failure the user can mend. The command line prints it in one line, without a
    traceback, and exits with status 2.

    Args:
        message: what went wrong, naming the argument and its value.
        remedy: what to do about it, as an imperative ("run `alignlab data pull`").
    """

    def __init__(self, message: str, remedy: str | None = None):
        self.message, self.remedy = message, remedy
        super().__init__(message if remedy is None else f"{message} {remedy}")
