"""Loads dumps of the databases of earlier releases. `script/dump_release.py` makes such dumps."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.contrib.contenttypes.models import ContentType
from django.db import connection

#: The folder of the dumps. Each dump is named after the commit of its release.
DUMPS = Path(__file__).parents[2] / "db" / "data"


@contextmanager
def database_of(release: str, folder: Path) -> Iterator[None]:
    """Loads a release's dump into a new database. Until the end of the block, this process uses the
    new database. Unpacks the dump into `folder`, with the contents of the release's large files in
    the subfolder blobs. The end of the block drops the new database. Before that, all threads
    except the caller's must close their connections."""
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
    """Makes this process use another database on the same Postgres server."""
    connection.close()
    connection.settings_dict["NAME"] = name
    # Django caches the ids of content types, which differ between databases.
    ContentType.objects.clear_cache()


def _load(sql: str) -> None:
    """Executes an SQL script as psql does. The lines after a COPY statement are the rows to copy,
    up to an end marker, a line with a backslash and a dot."""
    statements: list[str] = []
    # Rows may contain characters, such as U+2028, at which `splitlines` would split them.
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
