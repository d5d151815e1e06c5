"""Text from outside inside Streamlit's Markdown; tests/browser/test_text_from_outside.py shows it in a browser."""

from hypothesis import given
from hypothesis import strategies as st
from page_session import texts

from jsc_explore.web.plain_text import plain


class Element:
    def __init__(self, value: str) -> None:
        self.value = value


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"])))
def test_no_character_is_lost(text: str) -> None:
    assert texts([Element(plain(text))]) == text


def test_spaces_at_the_start_of_a_line_make_no_block_of_code() -> None:
    assert plain("first\n        second") == "first  \nsecond"
