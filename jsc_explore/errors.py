"""Errors a person can act on: each names the field, the value, the rule and the remedy."""

from __future__ import annotations


class JscError(Exception):
    """Base of every error this project raises on purpose; its text is one line for the user."""


class FieldError(JscError, ValueError):
    """A value that breaks a rule.

    Parameters
    ----------
    field: name of the offending field, as the user typed it.
    value: the value given.
    rule: what must hold, e.g. ``"must lie in [1, 65536]"``.
    remedy: what to do, e.g. ``"try 256"``.
    """

    def __init__(self, field: str, value: object, rule: str, remedy: str) -> None:
        self.field, self.value, self.rule, self.remedy = field, value, rule, remedy
        super().__init__(f"{field} = {_shown(value)}: {rule}; {remedy}")

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, object, str, str]]:
        # Exception's own pickling would call __init__ with the finished text alone.
        return type(self), (self.field, self.value, self.rule, self.remedy)


class DataError(JscError):
    """A data source that cannot be fetched, read or trusted."""


class StoreError(JscError):
    """A store directory or a Parquet file that cannot be used."""


class NotAllowedError(JscError):
    """A request by somebody who has no right to make it."""


class UnconfirmedError(JscError):
    """A request so long that it has to be confirmed: how many ``runs``, expected ``seconds``, the same in ``words``."""

    def __init__(self, runs: int, seconds: float, words: str) -> None:
        self.runs, self.seconds, self.words = runs, seconds, words
        these = f"{runs:,} runs are" if runs != 1 else "1 run is"
        super().__init__(f"{these} expected to take {words} on this machine; confirm it, or ask for less")

    def __reduce__(self) -> tuple[type[UnconfirmedError], tuple[int, float, str]]:
        return type(self), (self.runs, self.seconds, self.words)


def _shown(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
