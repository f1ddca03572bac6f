"""Tests that lists which are written in two places, for example in Python and in SQL, have the same
entries."""

import re

from realms.models import FileVersion
from realms.triggers import VERSION_IS_IMMUTABLE
from reindex.index.search_sql import _EXPECTED
from settings.environment import BASE_DIR, Environment

#: The only columns that an update may change in the row of a file version (the content of a file
#: from one generation to another). An update that sets these columns closes the version, which
#: means that it is no longer current.
CLOSING = {"until_generation", "closed_at"}


def test_the_reference_page_describes_every_setting() -> None:
    page = (BASE_DIR / "docs" / "reference" / "settings.md").read_text()
    described = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(described) == sorted(Environment.model_fields)


def test_the_django_settings_copy_every_environment_field() -> None:
    text = (BASE_DIR / "settings" / "__init__.py").read_text()
    assert set(re.findall(r"\benv\.(\w+)", text)) == set(Environment.model_fields)


def test_a_column_of_file_versions_never_changes_unless_it_closes_them() -> None:
    condition = VERSION_IS_IMMUTABLE.condition
    assert condition is not None
    before, after = re.findall(r"\(((?:OLD|NEW)\.[^()]*)\)", str(condition.sql))
    compared = [name.removeprefix("OLD.") for name in before.split(", ")]
    assert [name.removeprefix("NEW.") for name in after.split(", ")] == compared
    fields = [field for field in FileVersion._meta.concrete_fields if not field.primary_key]
    assert sorted(compared) == sorted({str(field.column) for field in fields} - CLOSING)


def test_a_search_error_can_name_the_expected_value_of_every_type() -> None:
    fields = (BASE_DIR / "card_library" / "fields.ts").read_text()
    union = re.search(r"^export type ValueType = (.*);$", fields, re.MULTILINE)
    assert union is not None
    types = set(re.findall(r'"(\w+)"', union[1]))
    assert types - _EXPECTED.keys() == set()
    assert len(types) > 5
