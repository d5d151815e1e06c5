"""Errors: each message names the field, the value, the rule and the remedy."""

from __future__ import annotations


class JscError(Exception):
    """Base class of this project's errors; the message is one line for the user."""


class FieldError(JscError, ValueError):
    """A value is invalid.

    Parameters
    ----------
    field: name of the field, as the user typed it.
    value: the value given.
    rule: what must hold, e.g. ``"must lie in [1, 65536]"``.
    remedy: what to do, e.g. ``"try 256"``.
    """

    def __init__(self, field: str, value: object, rule: str, remedy: str) -> None:
        self.field, self.value, self.rule, self.remedy = field, value, rule, remedy
        super().__init__(f"{field} = {_shorten(value)}: {rule}; {remedy}")

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, object, str, str]]:
        # Exception's own pickling would call __init__ with the message alone.
        return type(self), (self.field, self.value, self.rule, self.remedy)


class DataError(JscError):
    """A data source cannot be fetched or read, or its content fails a check."""


class StoreError(JscError):
    """A store directory, a database or a Parquet file cannot be used."""


class StoreGoneError(StoreError):
    """A store's directory was renamed, removed or replaced while it was in use."""


class NotAllowedError(JscError):
    """The requester has no right to train."""


class UnconfirmedError(JscError):
    """A request is expected to take so long that it has to be confirmed.

    ``runs`` counts the runs to train, ``seconds`` is the expected time, ``duration`` the same as text.
    """

    def __init__(self, runs: int, seconds: float, duration: str) -> None:
        self.runs, self.seconds, self.duration = runs, seconds, duration
        subject = f"{runs:,} runs are" if runs != 1 else "1 run is"
        super().__init__(f"{subject} expected to take {duration} on this machine; confirm it, or request fewer runs")

    def __reduce__(self) -> tuple[type[UnconfirmedError], tuple[int, float, str]]:
        return type(self), (self.runs, self.seconds, self.duration)


def _shorten(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
