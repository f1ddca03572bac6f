"""What a search says of a value that its field can't have."""

import pytest

from reindex.index.fields import CardType
from reindex.index.query import Filter, InvalidQuery
from reindex.index.search_sql import Compiler


def test_a_value_for_a_field_of_an_unknown_type_is_an_invalid_query() -> None:
    """An index may have types of fields that this release doesn't know: a newer one wrote it."""
    types = [CardType(("http://x/a/A",), {"shade": "colour"})]
    compiler = Compiler("http://x/", types, False, lambda *_: None)
    with pytest.raises(InvalidQuery, match="should be another value"):
        compiler.filter(Filter.model_validate({"eq": {"shade": 1}}), None, ("filter",))
