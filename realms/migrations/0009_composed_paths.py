"""Paths are kept with their characters composed (NFC), those of past generations too."""

import unicodedata
from itertools import count
from pathlib import PurePosixPath

import pgtrigger
from django.db import migrations

_DECOMPOSED = """
SELECT DISTINCT r.id, r.url, v.path FROM realms_fileversion v JOIN realms_realm r ON r.id = v.realm_id
WHERE v.path IS NOT NFC NORMALIZED ORDER BY r.url, v.path
"""
_TAKEN = "SELECT 1 FROM realms_fileversion WHERE realm_id = %s AND path = %s LIMIT 1"
_RENAME = "UPDATE realms_fileversion SET path = %s WHERE realm_id = %s AND path = %s"
#: The pages of a card, in its realm and wherever that is published.
_RENAME_PAGES = """
UPDATE reindex_indexedcard c SET path = %(to)s FROM realms_realm r
WHERE c.realm_url = r.url AND %(realm)s IN (r.id, r.source_id) AND c.path = %(path)s AND NOT EXISTS (
    SELECT 1 FROM reindex_indexedcard o WHERE o.job_id = c.job_id AND o.path = %(to)s
)
"""
#: They are built again when they are asked for.
_FORGET = "DELETE FROM definitions WHERE module_url || dependencies::text ~ '%[C-F][0-9A-F]'"


def compose_paths(apps, schema_editor):
    """Renames files through all of their history, so that whatever is published stays as it is.

    Where another file has the composed name, both stay: the one that is renamed gets a number.
    """
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(_FORGET)
        cursor.execute(_DECOMPOSED)
        for realm, url, path in cursor.fetchall():
            composed = unicodedata.normalize('NFC', path)
            to = _free_name(cursor, realm, composed)
            with pgtrigger.ignore('realms.FileVersion:version_is_immutable'):
                cursor.execute(_RENAME, [to, realm, path])
            if path.endswith('.json'):
                cards = {'to': to.removesuffix('.json'), 'path': path.removesuffix('.json')}
                cursor.execute(_RENAME_PAGES, {'realm': realm, **cards})
            if to != composed:
                print(f'\n  {url}: {path!a} is {to!r}, because {composed!r} is another file')


def _free_name(cursor, realm, path):
    name = PurePosixPath(path)
    for number in count(2):
        cursor.execute(_TAKEN, [realm, path])
        if cursor.fetchone() is None:
            return path
        path = str(name.with_name(f'{name.stem}-{number}{name.suffix}'))


class Migration(migrations.Migration):

    dependencies = [
        ('realms', '0008_tombstones_by_trigger'),
        ('definitions', '0004_reader'),
        ('reindex', '0011_leases'),
    ]

    operations = [migrations.RunPython(compose_paths, migrations.RunPython.noop)]
