"""Text from outside the program (names, values, messages) inside Streamlit's Markdown, shown as it is."""

import re

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
# Streamlit replaces these after it has parsed the Markdown, whether escaped or not: emoji and icon names, addresses,
# arrows and relations.
_REPLACED_LATER = re.compile(r"(:(?=[\w/+-])|(?<=\w)@(?=\w)|\bwww(?=\.)|[<>~=-](?=[>=-]))")
_WORD_JOINER = "\u2060"


def plain(text: object) -> str:
    """Return Markdown that shows ``str(text)`` unchanged: no formatting, link, image, formula, icon or emoji.

    Lines stay lines; spaces at their ends are dropped. An invisible word joiner (U+2060) stands where Streamlit would
    otherwise make a link or an emoji.
    """
    lines = (_REPLACED_LATER.sub(rf"\1{_WORD_JOINER}", line.strip()) for line in str(text).splitlines())
    return "  \n".join(_PUNCTUATION.sub(r"\\\1", line) for line in lines)
