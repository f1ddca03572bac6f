"""Tests a search for a value of a field that has an unknown type. The search gets an error."""

import pytest

from reindex.index.fields import CardType
from reindex.index.query import Filter, InvalidQuery
from reindex.index.search_sql import Compiler


def test_a_value_for_a_field_of_an_unknown_type_is_an_invalid_query() -> None:
    """A newer release may have written an index with field types that this release doesn't know."""
    types = [CardType(("http://x/a/A",), {"shade": "colour"})]
    compiler = Compiler("http://x/", types, False, lambda *_: None)
    with pytest.raises(InvalidQuery, match="should be another value"):
        compiler.filter(Filter.model_validate({"eq": {"shade": 1}}), None, ("filter",))
