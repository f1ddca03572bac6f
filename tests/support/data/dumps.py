"""Loads database dumps of earlier releases, which were made by `script/dump_release.py`."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.contrib.contenttypes.models import ContentType
from django.db import connection

#: The folder of the dumps. Each dump's name is the commit of its release.
DUMPS = Path(__file__).parents[2] / "db" / "data"


@contextmanager
def database_of(release: str, folder: Path) -> Iterator[None]:
    """Loads a release's dump into a new database. Until the end of the block, this process uses the
    new database. Unpacks the release's blobs into `folder`. All connections must be closed at the
    end of the block."""
    name = connection.settings_dict["NAME"]
    own = f"{name}_of_{release}"
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{own}" WITH (FORCE)')
        cursor.execute(f'CREATE DATABASE "{own}" TEMPLATE template0')
    use(own)
    try:
        with tarfile.open(DUMPS / f"{release}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        _load((folder / "database.sql").read_text())
        yield
    finally:
        use(name)
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{own}" WITH (FORCE)')


def use(name: str) -> None:
    """Makes this process use another database of the server."""
    connection.close()
    connection.settings_dict["NAME"] = name
    # Django caches the ids of content types, which differ between databases.
    ContentType.objects.clear_cache()


def _load(sql: str) -> None:
    """Executes an SQL script as psql does. A line with an end marker ends the rows of a COPY
    statement."""
    statements: list[str] = []
    # splitlines() would also split at other characters, which rows may contain.
    lines = iter(sql.split("\n"))
    with connection.cursor() as cursor:
        for line in lines:
            if not (line.startswith("COPY ") and line.endswith(" FROM stdin;")):
                statements.append(line)
                continue
            cursor.execute("\n".join(statements))
            statements.clear()
            with cursor.cursor.copy(line.removesuffix(";")) as copy:
                for row in iter(lambda: next(lines), "\\."):
                    copy.write(f"{row}\n")
        cursor.execute("\n".join(statements))
