"""Tests which texts of clients can be stored, which characters are replaced, and which texts count
as whole numbers."""

import pytest

from notifications.texts import (
    check_encodable,
    check_storable,
    has_control_character,
    is_storable,
    made_storable,
    whole_number,
)
from realms.errors import Malformed
from realms.http.requests import without_nul


@pytest.mark.parametrize("text", ["", "plain", "é世😀", "\x01\x7f", "\ud7ff\ue000\uffff"])
def test_a_text_of_whole_characters_is_stored_as_it_is(text: str) -> None:
    assert is_storable(text)
    assert made_storable(text) == check_encodable(text) == check_storable(text) == text


@pytest.mark.parametrize("half", ["\ud800", "\udbff", "\udc00", "\udfff"])
def test_half_of_a_surrogate_pair_can_neither_be_stored_nor_encoded(half: str) -> None:
    text = f"a{half}b"
    assert not is_storable(text)
    assert made_storable(text) == "a\ufffdb"
    for check in (check_encodable, check_storable):
        with pytest.raises(ValueError, match=r"^half of a surrogate pair is not a character$"):
            check(text)


def test_a_nul_can_be_encoded_but_not_stored() -> None:
    text = "a\x00b"
    assert not is_storable(text)
    assert made_storable(text) == "a\ufffdb"
    assert check_encodable(text) == text
    with pytest.raises(ValueError, match=r"^a NUL character can't be stored$"):
        check_storable(text)


def test_only_ascii_control_characters_count_as_control_characters() -> None:
    found = [chr(code) for code in range(0x300) if has_control_character(f"a{chr(code)}b")]
    assert found == [*map(chr, range(32)), "\x7f"]


def test_a_path_with_a_nul_is_refused() -> None:
    assert without_nul("a/b") == "a/b"
    with pytest.raises(Malformed, match=r"^the path has a NUL character$"):
        without_nul("a\x00b")


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("007", 7), ("42", 42), ("9" * 18, 10**18 - 1)]
)
def test_a_text_of_up_to_18_digits_is_read_as_a_whole_number(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "-1", "1.0", "1e3", "1_000", "0x1", "²", "٣", "９", "9" * 19]
)
def test_a_text_that_is_not_18_plain_digits_is_not_a_whole_number(text: str) -> None:
    assert whole_number(text) is None


def test_a_caller_can_choose_how_many_digits_a_number_may_have() -> None:
    assert whole_number("999", digits=3) == 999
    assert whole_number("1000", digits=3) is None
    assert whole_number("1" * 4300, digits=4300) == int("1" * 4300)
