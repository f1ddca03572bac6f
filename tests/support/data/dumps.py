"""Databases of earlier releases: `script/dump_release.py` writes them, and tests load them."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.contrib.contenttypes.models import ContentType
from django.db import connection

#: The dumps are here, each called after its release's commit.
DUMPS = Path(__file__).parents[2] / "db" / "data"


@contextmanager
def database_of(release: str, folder: Path) -> Iterator[None]:
    """Makes a release's database the one that this process uses, beside the test database; puts the
    release's blobs into `folder`. All connections must be closed at the end."""
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
    """Connects this process to another database of the server from now on."""
    connection.close()
    connection.settings_dict["NAME"] = name
    # The ids of content types are remembered in the process.
    ContentType.objects.clear_cache()


def _load(sql: str) -> None:
    """Executes a script as psql does: rows follow each COPY, up to a line that ends them."""
    statements: list[str] = []
    # Not splitlines(): rows may hold other characters that it takes for ends of lines.
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
