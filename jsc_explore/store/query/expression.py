"""Filter expressions: the syntax of SQL's WHERE over the columns of a run, with a parser of its own.

The user's text never reaches the database. It is parsed into an expression over an allow-list of typed columns,
operators and functions, and SQL is generated from that with every constant as a parameter. So it can read nothing but
runs and write nothing, and every error has a position. Columns may be written by their labels, ``batch size``, and
values of hyperparameters without quotes, ``model = 16 - 64 - 5``: only those that the hyperparameter can have.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa

from jsc_explore.config import FIELDS, check_value
from jsc_explore.errors import FieldError
from jsc_explore.network import display_name
from jsc_explore.store.schema import COLUMNS, SCALARS

Type = Literal["number", "text", "bool"]
MAX_TEXT, MAX_DEPTH = 2000, 40
_TYPE_OF_ARROW: tuple[tuple[Callable[[Any], bool], Type], ...] = (
    (pa.types.is_boolean, "bool"),
    (pa.types.is_string, "text"),
    (lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind), "number"),
)
# Names that are not columns of the file.
_DERIVED: dict[str, tuple[str, Type]] = {
    "silent": ("(len(silent_classes) > 0)", "bool"),
    "diverged": ("(status = 'diverged')", "bool"),
}
_DERIVED_DOCS = {
    "silent": "a class is silent: its output is zero for more than 99% of its jets",
    "diverged": "a loss or a weight became infinite or NaN",
}
# How columns are called on the pages; hyperparameters have their labels.
_LABELS = {name: spec.inline_label for name, spec in FIELDS.items()} | {
    "val_acc": "validation accuracy", "best_val_acc": "best validation accuracy", "test_acc": "test accuracy",
    "best_test_acc": "best test accuracy", "val_loss": "validation loss", "best_val_loss": "best validation loss",
    "test_loss": "test loss", "best_test_loss": "best test loss", "train_time_s": "training time",
    "silent": "silent class",
}  # fmt: skip
_SHORT_NAMES = {"accuracy": "val_acc", "loss": "val_loss", "lr": "learning_rate"}
_LABEL_WORDS = 3
# Values that may stand without quotes, besides those of hyperparameters.
_KNOWN_VALUES = {"status": ("done", "diverged"), "stop_reason": ("max_epochs", "early_stopping", "diverged")}
_SWITCHES = {"yes": "TRUE", "on": "TRUE", "no": "FALSE", "off": "FALSE"}
_FUNCTIONS: dict[str, tuple[str, Type, Type]] = {
    "abs": ("abs({})", "number", "number"),
    "round": ("round({})", "number", "number"),
    # In SQL the logarithm of zero is an error that fails the whole query; here it is null.
    "ln": ("ln(nullif(greatest({}, 0), 0))", "number", "number"),
    "log10": ("log10(nullif(greatest({}, 0), 0))", "number", "number"),
    "log2": ("log2(nullif(greatest({}, 0), 0))", "number", "number"),
    "lower": ("lower({})", "text", "text"),
    "upper": ("upper({})", "text", "text"),
    "length": ("length({})", "text", "number"),
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:\s*%)?)|(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<symbol><=|>=|<>|!=|==|[=<>+\-*/(),]))"
)
_TEXT = "?::VARCHAR"
_COMPARISONS = ("=", "==", "<>", "!=", "<", "<=", ">", ">=")
_KEYWORDS = frozenset({"and", "or", "not", "in", "between", "like", "ilike", "is", "null", "true", "false"})


class FilterError(FieldError):
    """A filter expression that cannot be parsed; ``position`` is the index of the wrong character."""

    def __init__(self, text: str, position: int, rule: str, remedy: str) -> None:
        self.text, self.position = text, position
        super().__init__("filter", text, f"{rule} at character {position + 1}", remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_error, (self.text, self.position, self.rule, self.remedy, self.args)

    def pointed(self, width: int = MAX_TEXT) -> str:
        """Return the text and, on a second line, a mark under the wrong character.

        Of a text longer than ``width`` the part around that character.
        """
        start = max(0, min(self.position - width // 2, len(self.text) - width))
        part = self.text[start : start + width]
        before, after = "…" if start else "", "…" if start + width < len(self.text) else ""
        return f"{before}{part}{after}\n{' ' * (len(before) + self.position - start)}^"


def _rebuild_error(text: str, position: int, rule: str, remedy: str, args: tuple[str, ...]) -> FilterError:
    error = FilterError(text, position, rule, remedy)
    error.rule, error.args = rule, args
    return error


def filter_columns() -> dict[str, Type]:
    """Return the columns that a filter expression may use, with their types."""
    return dict(_columns())


def describe_columns() -> list[tuple[str, str, str]]:
    """Return for each column of a filter expression its label (or ""), its name and its meaning."""
    docs = {column.name: column.doc for column in COLUMNS} | _DERIVED_DOCS
    ordered = dict.fromkeys((*_DERIVED, *_LABELS, *_columns()))
    return [(_LABELS.get(name, ""), name, docs[name].removeprefix("hyperparameter: ")) for name in ordered]


@lru_cache(maxsize=256)
def parse_filter(text: str) -> tuple[str, tuple[Any, ...]]:
    """Translate a filter expression to a SQL condition and its parameters; no text of the user is in the SQL.

    Raises FilterError with position and reason.
    """
    if len(text) > MAX_TEXT:
        raise FilterError(text[:MAX_TEXT], MAX_TEXT, f"must have at most {MAX_TEXT} characters", "shorten it")
    return _Parser(text).condition()


@lru_cache(maxsize=1)
def _columns() -> dict[str, Type]:
    known: dict[str, Type] = {name: kind for name, (_, kind) in _DERIVED.items()}
    for column in COLUMNS:
        for is_type, kind in _TYPE_OF_ARROW:
            if column.name in SCALARS and is_type(column.type):
                known[column.name] = kind
    return known


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Return column by name: its own, its label or a short name, in lower case."""
    return {label.lower(): name for name, label in _LABELS.items()} | _SHORT_NAMES | {name: name for name in _columns()}


def _called(column: str) -> str:
    """Return what a message calls a column: ``batch size (batch_size)``."""
    label = _LABELS.get(column, column)
    return label if label == column else f"{label} ({column})"


def _known_value(column: str, text: str) -> str:
    """Return the value of a text column that stands without quotes; FieldError if the column cannot have it."""
    if allowed := _KNOWN_VALUES.get(column):
        if text.lower() not in allowed:
            raise FieldError(column, text, "must be one of " + ", ".join(allowed), f"try {allowed[0]}")
        return text.lower()
    spec = FIELDS[column]
    labels = {label.lower(): value for value, label in spec.value_labels.items()}
    # Names of own samples have capital letters.
    return str(check_value(column, labels.get(text.lower(), text if spec.pattern else text.lower())))


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


@dataclass(frozen=True)
class _Expression:
    sql: str
    values: tuple[Any, ...]
    type: Type
    position: int
    # The column, if it is nothing else.
    column: str = ""


class _Parser:
    """A recursive descent parser: or, and, not, comparison, sum, product, sign, primary; one method per level."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokenize()
        self.at = 0
        self.depth = 0

    def condition(self) -> tuple[str, tuple[Any, ...]]:
        whole = self._bool(self._or())
        if self._peek().kind != "end":
            raise self._error(
                self._peek(), f"{self._peek().text!r} is not expected", "join conditions with and, or; close brackets"
            )
        return whole.sql, whole.values

    def _tokenize(self) -> list[_Token]:
        tokens, position = [], 0
        end = len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None:
                start = position + len(self.text[position:]) - len(self.text[position:].lstrip())
                open_quote = self.text[start] == "'"
                raise FilterError(
                    self.text,
                    start,
                    "a quote is not closed" if open_quote else f"{self.text[start]!r} is not allowed",
                    "close it with '" if open_quote else "write e.g. accuracy > 70% and optimizer = sgd",
                )
            kind = str(match.lastgroup)
            tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            position = match.end()
        return [*tokens, _Token("end", "the end", end)]

    def _peek(self) -> _Token:
        return self.tokens[self.at]

    def _accept(self, *texts: str) -> _Token | None:
        token = self._peek()
        if token.kind in ("word", "symbol") and token.text.lower() in texts:
            self.at += 1
            return token
        return None

    def _expect(self, text: str, remedy: str) -> None:
        if not self._accept(text):
            raise self._error(self._peek(), f"{text!r} is missing", remedy)

    def _error(self, token: _Token | _Expression, rule: str, remedy: str) -> FilterError:
        return FilterError(self.text, token.position, rule, remedy)

    def _bool(self, node: _Expression) -> _Expression:
        if node.type != "bool":
            raise self._error(node, "a condition is expected", "compare it with something, e.g. accuracy > 70%")
        return node

    def _or(self) -> _Expression:
        return self._chain("or", lambda: self._chain("and", self._not))

    def _chain(self, word: str, part: Callable[[], _Expression]) -> _Expression:
        node = part()
        while self._accept(word):
            node = self._bool(node)
            right = self._bool(part())
            node = _Expression(
                f"({node.sql} {word.upper()} {right.sql})", node.values + right.values, "bool", node.position
            )
        return node

    def _not(self) -> _Expression:
        if token := self._accept("not"):
            inner = self._bool(self._nested(self._not, token))
            return _Expression(f"(NOT {inner.sql})", inner.values, "bool", token.position)
        return self._comparison()

    def _comparison(self) -> _Expression:
        left = self._sum()
        if token := self._accept(*_COMPARISONS):
            right = self._value(left)
            sign = {"==": "=", "!=": "<>"}.get(token.text, token.text)
            return _Expression(f"({left.sql} {sign} {right.sql})", left.values + right.values, "bool", left.position)
        if self._accept("is"):
            negated = "NOT " if self._accept("not") else ""
            self._expect("null", "write is null or is not null")
            return _Expression(f"({left.sql} IS {negated}NULL)", left.values, "bool", left.position)
        negated = "NOT " if self._accept("not") else ""
        if self._accept("in"):
            return self._in_list(left, negated)
        if self._accept("between"):
            low = self._check_type(left, self._sum())
            self._expect("and", "write between 0.6 and 0.7")
            high = self._check_type(left, self._sum())
            return _Expression(
                f"({left.sql} {negated}BETWEEN {low.sql} AND {high.sql})",
                left.values + low.values + high.values,
                "bool",
                left.position,
            )
        if token := self._accept("like", "ilike"):
            pattern = self._check_type(left, self._sum(), wanted="text")
            return _Expression(
                f"({left.sql} {negated}{token.text.upper()} {pattern.sql})",
                left.values + pattern.values,
                "bool",
                left.position,
            )
        if negated:
            raise self._error(
                self._peek(), "after 'not' in, between or like is expected", "write not in, not between or not like"
            )
        return left

    def _in_list(self, left: _Expression, negated: str) -> _Expression:
        self._expect("(", "write in ('adam', 'sgd')")
        items = [self._value(left)]
        while self._accept(","):
            items.append(self._value(left))
        self._expect(")", "close the list with )")
        values = left.values + tuple(value for item in items for value in item.values)
        return _Expression(
            f"({left.sql} {negated}IN ({', '.join(item.sql for item in items)}))", values, "bool", left.position
        )

    def _value(self, left: _Expression) -> _Expression:
        """Read what an expression is compared with; known values of a column need no quotes."""
        token = self._peek()
        if left.type == "bool" and token.kind == "word" and token.text.lower() in _SWITCHES:
            self.at += 1
            return _Expression(_SWITCHES[token.text.lower()], (), "bool", token.position)
        if left.type == "text" and left.column in (*FIELDS, *_KNOWN_VALUES) and self._is_unquoted(token):
            return self._unquoted(left.column)
        right = self._check_type(left, self._sum())
        if left.column == "model" and right.sql == _TEXT:
            # The store has one name for each network; a text that is no network stays as it is.
            with suppress(FieldError):
                right = replace(right, values=(display_name(right.values[0]),))
        return right

    def _is_unquoted(self, token: _Token) -> bool:
        """Return whether a value without quotes begins here: not a bracket, a function or a column of text."""
        if token.kind != "word":
            return token.kind == "number"
        word = token.text.lower()
        is_call = word in _FUNCTIONS and self.tokens[self.at + 1].text == "("
        return word not in _KEYWORDS and not is_call and _columns().get(_names().get(word, "")) != "text"

    def _unquoted(self, column: str) -> _Expression:
        """Read a value up to the next and, or, comma or closing bracket; it becomes a parameter like any text."""
        first = last = self._peek()
        depth = 0
        while self._peek().kind != "end" and (depth or self._peek().text.lower() not in ("and", "or", ",", ")")):
            last = self._peek()
            depth += {"(": 1, ")": -1}.get(last.text, 0)
            self.at += 1
        text = self.text[first.position : last.position + len(last.text)]
        try:
            return _Expression(_TEXT, (_known_value(column, text),), "text", first.position)
        except FieldError as error:
            shown = text if len(text) <= 40 else f"{text[:39]}…"
            raise self._error(first, f"{_called(column)} {shown!r}: {error.rule}", error.remedy) from None

    def _check_type(self, left: _Expression, right: _Expression, wanted: Type | None = None) -> _Expression:
        for node in (left, right) if wanted else (right,):
            if node.type != (wanted or left.type):
                place = f" for {_called(left.column)}" if left.column and node is right else ""
                raise self._error(
                    node,
                    f"a {wanted or left.type} is expected{place}, this is a {node.type}",
                    "write text in single quotes, numbers without",
                )
        return right

    def _sum(self) -> _Expression:
        return self._arithmetic(("+", "-"), lambda: self._arithmetic(("*", "/"), self._sign))

    def _arithmetic(self, signs: tuple[str, ...], part: Callable[[], _Expression]) -> _Expression:
        node = part()
        while token := self._accept(*signs):
            right = part()
            self._check_type(node, right, wanted="number")
            node = _Expression(
                f"({node.sql} {token.text} {right.sql})", node.values + right.values, "number", node.position
            )
        return node

    def _sign(self) -> _Expression:
        if token := self._accept("-", "+"):
            inner = self._nested(self._sign, token)
            self._check_type(inner, inner, wanted="number")
            return _Expression(f"({token.text} {inner.sql})", inner.values, "number", token.position)
        return self._primary()

    def _primary(self) -> _Expression:
        token = self._peek()
        self.at += token.kind != "end"
        if token.kind == "number":
            number = float(token.text.rstrip("% \t\r\n"))
            # Fifteen digits: 71.3% is 0.713, not 0.7129999999999999.
            number = float(f"{number / 100:.15g}") if token.text.endswith("%") else number
            return _Expression("?::DOUBLE", (number,), "number", token.position)
        if token.kind == "text":
            return _Expression(_TEXT, (token.text[1:-1].replace("''", "'"),), "text", token.position)
        if token.text == "(":
            inner = self._nested(self._or, token)
            self._expect(")", "close the bracket with )")
            return inner
        if token.kind == "word" and token.text.lower() in ("true", "false"):
            return _Expression(token.text.upper(), (), "bool", token.position)
        if token.kind == "word" and token.text.lower() not in _KEYWORDS:
            return self._named(token)
        raise self._error(
            token, f"a column, a number or a 'text' is expected, not {token.text}", "write e.g. accuracy > 70%"
        )

    def _named(self, token: _Token) -> _Expression:
        if self._peek().text == "(":
            return self._call(token)
        words = [token.text.lower()]
        for more in self.tokens[self.at : self.at + _LABEL_WORDS - 1]:
            if more.kind != "word" or more.text.lower() in _KEYWORDS:
                break
            words.append(more.text.lower())
        phrases = [" ".join(words[:count]) for count in range(len(words), 0, -1)]
        phrase = next((phrase for phrase in phrases if phrase in _names()), None)
        if phrase is None:
            near = [one for text in phrases for one in difflib.get_close_matches(text, [*_names(), *_FUNCTIONS], n=1)]
            remedy = (
                f"did you mean {near[0]}?" if near else "write text in single quotes; docs/results.md lists the columns"
            )
            raise self._error(token, f"{token.text!r} is not a column of a run", remedy)
        self.at += phrase.count(" ")
        name = _names()[phrase]
        kind = _columns()[name]
        # As DOUBLE, because a product of integers could overflow and fail the query.
        sql = _DERIVED[name][0] if name in _DERIVED else f"{name}::DOUBLE" if kind == "number" else name
        return _Expression(sql, (), kind, token.position, name)

    def _call(self, token: _Token) -> _Expression:
        if token.text.lower() not in _FUNCTIONS:
            near = difflib.get_close_matches(token.text.lower(), _FUNCTIONS, n=1)
            remedy = f"did you mean {near[0]}?" if near else "functions are " + ", ".join(_FUNCTIONS)
            raise self._error(token, f"{token.text!r} is not a function", remedy)
        template, takes, gives = _FUNCTIONS[token.text.lower()]
        self._expect("(", "open a bracket")
        inner = self._nested(self._sum, token)
        self._check_type(inner, inner, wanted=takes)
        self._expect(")", "close the bracket with )")
        return _Expression(template.format(inner.sql), inner.values, gives, token.position)

    def _nested(self, part: Callable[[], _Expression], token: _Token) -> _Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(token, f"is nested deeper than {MAX_DEPTH} levels", "use fewer brackets")
        node = part()
        self.depth -= 1
        return node
