"""Expressions have one normal form."""

import unicodedata

import pytest
from genseg_hub.schema import normalize_expression
from hypothesis import example, given
from hypothesis import strategies as st


@given(st.text())
@example("e\u0301 \u2028\u0085 \ud800\x00 x")
@example("\u0958\n\u00a0")
def test_normalizing_twice_changes_nothing(text):
    once = normalize_expression(text)
    assert normalize_expression(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())
    assert not {unicodedata.category(character) for character in once} & {"Cc", "Cs", "Zl", "Zp"}
    once.encode()


@given(st.text(), st.sampled_from(["NFC", "NFD"]))
def test_composed_and_decomposed_text_are_one_expression(text, form):
    assert normalize_expression(unicodedata.normalize(form, text)) == normalize_expression(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  the  red\tshape\n", "the red shape"),
        ("the\u00a0red\u2003shape", "the red shape"),
        ("cafe\u0301", "caf\u00e9"),
        ("Ångström", "\u00c5ngstr\u00f6m"),
        ("the <red> shape!", "the <red> shape!"),
        (" \x00\ud83d ", ""),
    ],
)
def test_spaces_and_characters_have_one_form(text, normal):
    assert normalize_expression(text) == normal
