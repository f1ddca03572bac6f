"""Tests which fields a log record has when it is written as a line of JSON."""

import io
import json
import logging
from typing import Any

import pytest
from django.conf import settings
from django.utils.module_loading import import_string

from reindex.log_fields import AddFields, log_fields


@pytest.fixture
def lines() -> io.StringIO:
    """Returns the stream to which the fixture `logger` writes lines of JSON."""
    return io.StringIO()


@pytest.fixture
def logger(lines: io.StringIO) -> logging.Logger:
    formatters: Any = settings.LOGGING["formatters"]
    form = dict(formatters["json"])
    formatter = import_string(form.pop("()"))(form.pop("format"), **form)
    handler = logging.StreamHandler(lines)
    handler.setFormatter(formatter)
    handler.addFilter(AddFields("web-1"))
    made = logging.Logger("made")
    made.addHandler(handler)
    return made


def test_a_record_names_replica_realm_generation_and_job(
    logger: logging.Logger, lines: io.StringIO
) -> None:
    with log_fields(realm="https://a.example/", generation=3, job=7):
        logger.warning("job %d is late", 7)
    line = json.loads(lines.getvalue())
    line.pop("time")
    assert line == {
        "level": "WARNING", "logger": "made", "message": "job 7 is late", "replica": "web-1",
        "realm": "https://a.example/", "generation": 3, "job": 7,
    }  # fmt: skip


def test_log_fields_end_with_their_block_and_a_call_overrides_them(
    logger: logging.Logger, lines: io.StringIO
) -> None:
    with log_fields(realm="outer"), log_fields(realm="inner"):
        logger.warning("one")
        logger.warning("two", extra={"realm": "own"})
    logger.warning("three")
    realms = [json.loads(line).get("realm") for line in lines.getvalue().splitlines()]
    assert realms == ["inner", "own", None]


def test_an_error_keeps_its_traceback_in_one_line(
    logger: logging.Logger, lines: io.StringIO
) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed")
    (line,) = lines.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["exc_info"]
