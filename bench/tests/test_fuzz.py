"""The fuzzer finds faults where there are some, and none in the parsers with a few of its inputs."""

import pytest

from bench import fuzz


@pytest.mark.parametrize("parser", fuzz.PARSERS, ids=lambda parser: parser.__name__)
def test_whatever_is_typed_gets_an_answer_or_one_clear_line_and_writes_nothing(parser):
    result = fuzz.try_inputs(parser, 60)
    assert (result.faults, result.writes) == ([], [])
    assert result.inputs >= 40


def test_the_fuzzer_sees_a_traceback_and_a_write_where_there_is_one(tmp_path):
    """It is no use if it cannot find anything."""

    def source_error(text):
        (tmp_path / "written").write_text("x", encoding="utf-8")
        raise KeyError(text)

    fuzz.PARSERS[source_error] = fuzz.LAYERS
    try:
        result = fuzz.try_inputs(source_error, 5)
    finally:
        del fuzz.PARSERS[source_error]
    assert len(result.faults) == result.inputs > 0
    assert len(result.writes) >= result.inputs
