"""Tests that a JSON document may hold only numbers in JavaScript's range."""

import pytest

from reindex.reading.strict_json import finite_only


@pytest.mark.parametrize(
    ("literal", "number"), [("0.0", 0.0), ("-1.5", -1.5), ("1e308", 1e308), ("1e-999", 0.0)]
)
def test_a_number_within_the_range_is_read(literal: str, number: float) -> None:
    assert finite_only(literal) == number


@pytest.mark.parametrize("literal", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_a_number_beyond_the_range_is_refused_and_quoted(literal: str) -> None:
    with pytest.raises(ValueError, match=f"^{literal} is not a number that JSON can hold$"):
        finite_only(literal)
