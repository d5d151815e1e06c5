"""Filter expressions: the syntax of SQL's WHERE over the columns of a run, with a parser of its own.

The user's text never reaches the database. It is parsed into an expression over an allow-list of typed columns,
operators and functions, and SQL is generated from that with every constant as a parameter. So it can read nothing but
runs and write nothing, and every error has a position.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa

from jsc_explore.errors import FieldError
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
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<symbol><=|>=|<>|!=|==|[=<>+\-*/(),]))"
)
_COMPARISONS = ("=", "==", "<>", "!=", "<", "<=", ">", ">=")
_KEYWORDS = frozenset({"and", "or", "not", "in", "between", "like", "ilike", "is", "null", "true", "false"})


class FilterError(FieldError):
    """A filter expression that cannot be parsed; ``position`` is the index of the wrong character."""

    def __init__(self, text: str, position: int, rule: str, remedy: str) -> None:
        self.text, self.position = text, position
        super().__init__("filter", text, f"{rule} at character {position + 1}", remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_error, (self.text, self.position, self.rule, self.remedy, self.args)

    def pointed(self) -> str:
        """Return the text and, on a second line, a mark under the wrong character."""
        return f"{self.text}\n{' ' * self.position}^"


def _rebuild_error(text: str, position: int, rule: str, remedy: str, args: tuple[str, ...]) -> FilterError:
    error = FilterError(text, position, rule, remedy)
    error.rule, error.args = rule, args
    return error


def filter_columns() -> dict[str, Type]:
    """Return the names that a filter expression may use, with their types."""
    return dict(_columns())


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
                    "close it with '" if open_quote else "write e.g. val_acc > 0.7 and optimizer = 'sgd'",
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
            raise self._error(node, "a condition is expected", "compare it with something, e.g. val_acc > 0.7")
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
            right = self._check_type(left, self._sum())
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
        items = [self._check_type(left, self._sum())]
        while self._accept(","):
            items.append(self._check_type(left, self._sum()))
        self._expect(")", "close the list with )")
        values = left.values + tuple(value for item in items for value in item.values)
        return _Expression(
            f"({left.sql} {negated}IN ({', '.join(item.sql for item in items)}))", values, "bool", left.position
        )

    def _check_type(self, left: _Expression, right: _Expression, wanted: Type | None = None) -> _Expression:
        for node in (left, right) if wanted else (right,):
            if node.type != (wanted or left.type):
                raise self._error(
                    node,
                    f"a {wanted or left.type} is expected, this is a {node.type}",
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
            return _Expression("?::DOUBLE", (float(token.text),), "number", token.position)
        if token.kind == "text":
            return _Expression("?::VARCHAR", (token.text[1:-1].replace("''", "'"),), "text", token.position)
        if token.text == "(":
            inner = self._nested(self._or, token)
            self._expect(")", "close the bracket with )")
            return inner
        if token.kind == "word" and token.text.lower() in ("true", "false"):
            return _Expression(token.text.upper(), (), "bool", token.position)
        if token.kind == "word" and token.text.lower() not in _KEYWORDS:
            return self._named(token)
        raise self._error(
            token, f"a column, a number or a 'text' is expected, not {token.text}", "write e.g. val_acc > 0.7"
        )

    def _named(self, token: _Token) -> _Expression:
        name = token.text.lower()
        if self._peek().text == "(":
            return self._call(token)
        kind = _columns().get(name)
        if kind is None:
            near = difflib.get_close_matches(name, [*_columns(), *_FUNCTIONS], n=1)
            remedy = (
                f"did you mean {near[0]}?" if near else "write text in single quotes; docs/results.md lists the columns"
            )
            raise self._error(token, f"{token.text!r} is not a column of a run", remedy)
        # As DOUBLE, because a product of integers could overflow and fail the query.
        sql = _DERIVED[name][0] if name in _DERIVED else f"{name}::DOUBLE" if kind == "number" else name
        return _Expression(sql, (), kind, token.position)

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
