"""Dumps the database and the blobs of a release, for a test of later migrations.

    cd CLONE_OF_THE_RELEASE
    .venv/bin/python PATH_TO/script/dump_release.py tests/db/data/NAME.tar.gz

First run `script/release_content.py` to fill the database. The archive has `database.sql`, which
psql can load, and `blobs/`, the files that are too large for a row of the database. The embedded
Postgres has no pg_dump. So this script reads each table's rows with COPY. To get the schema, it
runs the release's migrations on a second, empty database, and records their statements. The script
itself imports only the settings of the release, so the script works with every release.
"""

import io
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

import django
from django.conf import settings
from django.db import connection, transaction

#: The first words of statements that change the schema. `schema` records only the statements that
#: begin with one of these words. Statements that change rows aren't needed, because `copied` dumps
#: the rows.
_SCHEMA = ("CREATE", "ALTER", "DROP", "COMMENT", "DO")
#: The maximum size of the archive. The script fails if the archive is larger, because archives are
#: committed to the repository.
LARGEST_BYTES = 200 * 1024


def main() -> None:
    """Writes the archive that the command line names."""
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".tar.gz"):
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    django.setup()
    # The data is read before `schema` switches `connection` to an empty database.
    with transaction.atomic(), connection.cursor() as cursor:
        # Processes of the release may write meanwhile, so all tables are read in one snapshot.
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        data = [*copied(cursor), *sequences(cursor)]
    sql = "\n".join(["SET check_function_bodies = false;", *schema(), *data, ""])
    blobs = Path(settings.STORAGES["blobs"]["OPTIONS"]["location"])
    with tarfile.open(target, "w:gz") as archive:
        add(archive, "database.sql", sql.encode())
        for path in sorted(each for each in blobs.rglob("*") if each.is_file()):
            add(archive, f"blobs/{path.relative_to(blobs)}", path.read_bytes())
    size = target.stat().st_size
    if size > LARGEST_BYTES:
        sys.exit(f"{target} has {size} bytes; dump a database that needs at most {LARGEST_BYTES}")
    sys.stdout.write(f"{target}: {size} bytes\n")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a file with the content `data` to the archive."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def schema() -> list[str]:
    """Runs the release's migrations on an empty database. Returns the statements that create the
    schema."""
    said: list[str] = []

    def keep(execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        text = sql if isinstance(sql, str) else sql.as_string(connection.connection)
        if text.lstrip().upper().startswith(_SCHEMA):
            said.append(context["cursor"].mogrify(text, params) if params else text)
        return execute(sql, params, many, context)

    connection.settings_dict["TEST"]["NAME"] = "schema_of_release"
    standing = connection.settings_dict["NAME"]
    with connection.execute_wrapper(keep):
        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    connection.creation.destroy_test_db(standing, verbosity=0)
    return [f"{each.strip().rstrip(';')};" for each in said]


def copied(cursor: Any) -> list[str]:
    """Returns COPY statements with each table's rows. Further statements turn triggers and foreign
    keys off while psql loads the rows."""
    parts = ["SET session_replication_role = replica;"]
    for table in sorted(connection.introspection.table_names(cursor)):
        columns = ", ".join(
            connection.ops.quote_name(column.name)
            for column in connection.introspection.get_table_description(cursor, table)
        )
        name = f"{connection.ops.quote_name(table)} ({columns})"
        with cursor.cursor.copy(f"COPY {name} TO STDOUT") as copy:
            rows = b"".join(bytes(block) for block in copy).decode()
        parts += [f"COPY {name} FROM stdin;", f"{rows}\\."]
    return [*parts, "SET session_replication_role = origin;"]


def sequences(cursor: Any) -> list[str]:
    """Returns statements that set each sequence to its current value."""
    cursor.execute(
        "SELECT quote_ident(sequencename), last_value FROM pg_sequences"
        " WHERE schemaname = current_schema() AND last_value IS NOT NULL ORDER BY 1"
    )
    return [f"SELECT setval('{name}', {value});" for name, value in cursor.fetchall()]


if __name__ == "__main__":
    main()
