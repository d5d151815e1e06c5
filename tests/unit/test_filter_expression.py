"""The text filter: what it takes, where it says it is wrong, and that nothing but the runs can be reached by it."""

import pickle
from contextlib import suppress

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsc_explore import paths
from jsc_explore.config import FIELDS
from jsc_explore.store.query.expression import FilterError, describe_columns, filter_columns, parse_filter

ROWS = """
    SELECT * FROM (VALUES
      ('adam', 'jsc-tiny', 256, 1e-3, 0.71, true, ['w'], 'done'),
      ('sgd', '16-64-5', 32, 1e-2, 0.68, false, []::VARCHAR[], 'done'),
      ('adam', 'it''s', 64, 1e-5, NULL, false, []::VARCHAR[], 'diverged')
    ) AS t(optimizer, model, batch_size, learning_rate, val_acc, final_relu, silent_classes, status)
"""


def chosen(text):
    where, values = parse_filter(text)
    found = duckdb.sql(f"SELECT model FROM ({ROWS}) WHERE {where}", params=list(values)).fetchall()
    return sorted(name for (name,) in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val_acc > 0.7 and (optimizer = 'sgd' or batch_size < 512)", ["jsc-tiny"]),
        ("VAL_ACC >= 6.8e-1 AND NOT silent", ["16-64-5"]),
        ("optimizer in ('sgd', 'adamw')", ["16-64-5"]),
        ("batch_size between 32 and 64", ["16-64-5", "it's"]),
        ("val_acc is null", ["it's"]),
        ("val_acc is not null and model like 'jsc%'", ["jsc-tiny"]),
        ("model = 'it''s'", ["it's"]),
        ("log10(learning_rate) <= -3 and not diverged", ["jsc-tiny"]),
        ("ln(val_acc - 0.7) > -100", ["jsc-tiny"]),
        ("batch_size * 99999999999 * 99999999999 > 0", ["16-64-5", "it's", "jsc-tiny"]),
        ("-batch_size + 2 * 16 = 0", ["16-64-5"]),
        ("final_relu = true or optimizer <> 'adam'", ["16-64-5", "jsc-tiny"]),
        ("true or val_acc > 1 and false", ["16-64-5", "it's", "jsc-tiny"]),
        ("accuracy > 70%", ["jsc-tiny"]),
        ("Validation accuracy between 67.5 % and 68%", ["16-64-5"]),
        ("model = jsc-tiny", ["jsc-tiny"]),
        ("Network = 16 - 64 - 5 and lr >= 1e-3", ["16-64-5"]),
        ("model = '16 - 64 - 5' or model = 16b-5", ["16-64-5", "jsc-tiny"]),
        ("not (model in (JSC-Tiny, 16-64-5))", ["it's"]),
        ("batch size = 64", ["it's"]),
        ("learning rate >= 1e-3 and Optimizer <> sgd", ["jsc-tiny"]),
        ("final relu = yes or final_relu = true", ["jsc-tiny"]),
        ("silent = no and status = done", ["16-64-5"]),
        ("status = diverged", ["it's"]),
        ("batch size - 32 = 0", ["16-64-5"]),
        ("optimizer = model or optimizer = lower('ADAM')", ["it's", "jsc-tiny"]),
    ],
)
def test_a_filter_means_what_sql_means(text, expected):
    assert chosen(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("val_ac > 1", 0, "did you mean val_acc?"),
        ("val_acc > 'x'", 10, "a number is expected for validation accuracy (val_acc), this is a text"),
        ("lr > fast", 5, "is not a column of a run"),
        ("batch siz = 64", 0, "did you mean batch size?"),
        ("device = cpu", 9, "write text in single quotes"),
        ("optimizer = adm", 12, "optimizer 'adm': must be one of adam, adamw, sgd at character 13; try adam"),
        ("schedule in (cosine, slow)", 21, "schedule (scheduler) 'slow': must be one of"),
        (
            "model = jsc-tny",
            8,
            "network (model) 'jsc-tny': is not a network of the lab at character 9; did you mean jsc-tiny?",
        ),
        ("model = 16-64-5; DROP TABLE runs", 15, "';' is not allowed"),
        ("model = 16-64-5 = 1", 8, "option '=' is unknown"),
        ("model = jsc-tiny or", 19, "not the end"),
        ("model = jsc-tiny) or (1 = 1", 16, "')' is not expected"),
        ("status = done'", 13, "a quote is not closed"),
        ("status = gone", 9, "must be one of done, diverged"),
        ("accuracy > %", 11, "'%' is not allowed"),
        ("accuracy > 70% 1", 15, "'1' is not expected"),
        ("val_acc >", 9, "not the end"),
        ("(val_acc > 1", 12, "')' is missing"),
        ("val_acc > 0.7 nad silent", 14, "'nad' is not expected"),
        ("batch_size", 0, "a condition is expected"),
        ("optimizer = 'adam", 12, "a quote is not closed"),
        ("silent not", 10, "after 'not' in, between or like is expected"),
        ("   batch_size = ;", 16, "is not allowed"),
        ("1 = 1; DROP TABLE runs", 5, "';' is not allowed"),
        ("1 = 1 -- comment", 9, "is not a column"),
        ("read_text('/etc/passwd') = 'x'", 0, "is not a function"),
        ("model = (SELECT 1)", 9, "is not a column"),
        ("runs.model = 'x'", 4, "'.' is not allowed"),
        ("curve_val_acc = 1", 0, "is not a column"),
        ("file = 'x'", 0, "is not a column"),
        ("(" * 60 + "1 = 1" + ")" * 60, 40, "is nested deeper than 40 levels"),
    ],
)
def test_a_bad_filter_shows_where_it_is_wrong(text, place, says):
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    assert caught.value.position == place
    assert says in str(caught.value)
    assert caught.value.pointed().splitlines()[-1] == " " * place + "^"


@pytest.mark.parametrize("text", ["silnt", "val_acc > 0.7 and silnt", "val_acc > 0.7 and batch_size > 64 and silnt"])
@pytest.mark.parametrize("rest", ["", " and optimizer = 'sgd' or batch_size > 16"])
def test_the_wrong_place_of_a_long_filter_is_shown_in_a_narrow_column(text, rest):
    with pytest.raises(FilterError) as caught:
        parse_filter(text + rest)
    shown, mark = caught.value.pointed(24).splitlines()
    assert len(shown) <= 26
    assert shown[mark.index("^") :].startswith("silnt")
    assert shown.strip("…") in text + rest


def test_a_filter_error_can_be_pickled():
    with pytest.raises(FilterError) as caught:
        parse_filter("optimizer = 'adam")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.position) == (str(caught.value), caught.value.position)


def test_a_filter_of_more_than_two_thousand_characters_is_refused():
    with pytest.raises(FilterError, match="at most 2000 characters"):
        parse_filter("1 = 1 or " * 300 + "silent")


_WORDS = st.sampled_from(
    ["val_acc", "model", "silent", "'a'", "0.5", "(", ")", ",", "and", "or", "not", "in", "like", "between", "is",
     "batch size", "lr", "accuracy", "70%", "network", "jsc-tiny", "16 - 64 - 5", "sgd", "status", "done", "yes",
     "final", "relu", "optimizer", "null", "=", "<", "+", "-", "*", "/", "abs", "lower", "true", ";", "--", "/*", "'",
     "select", "from", "$1", "?"]
)  # fmt: skip


@given(st.lists(_WORDS, max_size=14).map(" ".join))
def test_any_text_is_refused_with_a_message_or_filters_only_runs(text):
    with suppress(FilterError):
        where, values = parse_filter(text)
        assert where.count("?") == len(values), "every constant is a parameter"
        duckdb.sql(f"SELECT count(*) FROM ({ROWS}) WHERE {where}", params=list(values)).fetchall()


@given(st.sampled_from(["model", "optimizer", "status", "validate on"]), st.text(max_size=30))
def test_what_stands_without_quotes_is_a_known_value_and_never_in_the_sql(column, text):
    with suppress(FilterError):
        where, values = parse_filter(f"{column} = {text}")
        known = parse_filter(f"{column} = 'x'")[0]
        assert where == known or set(where) <= set(
            "() ?:=<>+-*/_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,abcdefghijklmnopqrstuvwxyz"
        )
        assert where.count("?") == len(values)
        duckdb.sql(f"SELECT count(*) FROM (FROM '{paths.snapshot()}' LIMIT 3) WHERE {where}", params=list(values))


def test_an_unquoted_value_is_a_parameter():
    assert parse_filter("network = 16 - 64 - 5") == ("(model = ?::VARCHAR)", ("16-64-5",))
    assert parse_filter("validate on = held-out data") == ("(validation = ?::VARCHAR)", ("holdout",))
    assert parse_filter("accuracy >= 71.3%") == ("(val_acc::DOUBLE >= ?::DOUBLE)", (0.713,))


def test_the_help_names_every_column_with_its_label_and_meaning():
    rows = {name: (label, doc) for label, name, doc in describe_columns()}
    assert rows.keys() == filter_columns().keys()
    assert rows["batch_size"] == ("batch size", "jets per optimizer step")
    assert all(doc for _, doc in rows.values())
    for label, name in ((label, name) for name, (label, _) in rows.items() if label):
        assert parse_filter(f"{label} is null") == parse_filter(f"{name} is null"), "each label can be written"
    assert {FIELDS[name].inline_label for name in FIELDS} <= {label for label, _ in rows.values()}


def test_the_columns_of_a_filter_are_the_scalars_of_a_run():
    columns = filter_columns()
    assert columns["val_acc"] == "number"
    assert columns["final_relu"] == columns["silent"] == "bool"
    assert "curve_val_acc" not in columns
    assert "confusion" not in columns
