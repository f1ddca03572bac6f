"""Fills a release's empty database with content of every kind, for `script/dump_release.py`.

    git worktree add ../release COMMIT && cd ../release     # and a .venv of its requirements
    ln -s PATH_TO/node_modules .
    export REALM_DATA_DIR=/an/empty/folder
    .venv/bin/python PATH_TO/script/release_content.py
    .venv/bin/python PATH_TO/script/dump_release.py PATH_TO/tests/db/data/COMMIT.tar.gz

Before the first Python command, install the release's requirements into `../release/.venv`. The
script starts a replica of the release, and uses only commands and endpoints that all releases have.
`tests/db/storage/test_migrating.py` checks that the content of this script survives migrations.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import jwt

sys.path.insert(0, os.getcwd())
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

ORIGIN = "http://localhost:4201"
ADAS, BENS, GONE = f"{ORIGIN}/ada/site/", f"{ORIGIN}/ben/private/", f"{ORIGIN}/ben/gone/"
SITE = "http://ada.localhost:4201/"
START_SECONDS = 60

PERSON = """\
import { Card, string } from "@realm/base";
export class Person extends Card {
  static displayName = "Person";
  static fields = { name: string() };
}
"""
POST = """\
import { Card, linksTo, Markdown, markdown, string } from "@realm/base";
import { Person } from "./person.tsx";
export class Post extends Card {
  static displayName = "Post";
  static fields = { title: string(), body: markdown(), author: linksTo(() => Person) };
  static isolated = ({ card }) => (
    <article><h1>{card.title}</h1><Markdown text={card.body} /></article>
  );
}
"""
USERS = """
from django.contrib.auth import get_user_model
for name in ("ada", "ben", "cyn", "ghost"):
    get_user_model().objects.create_user(name, f"{name}@example.com", is_superuser=name == "ada")
"""
GHOST = """
from django.contrib.auth import get_user_model
get_user_model().objects.get(username="ghost").delete()
"""


def main() -> None:
    """Makes users, realms, publications, permissions and jobs, and deletes a realm and a user."""
    # `sys.path` begins with the current folder, the release's worktree, so these are the settings
    # of the release.
    from settings import DATA_DIR
    from settings.processes import celery_worker, replica

    manage("migrate", "--verbosity", "0")
    manage("shell", "--command", USERS)
    port = free_port()
    processes = (*replica("dump", port, DATA_DIR), celery_worker("w"))
    *services, worker = (start(each) for each in processes)
    try:
        wait_for(port)
        with tempfile.TemporaryDirectory() as folder:
            finished(Path(folder))
            rights(port)
            manage("shell", "--command", GHOST)
            end(worker)
            waiting(Path(folder))
    finally:
        for each in (*services, worker):
            end(each)


def finished(folder: Path) -> None:
    """Makes a site that was published twice, a private realm, and a deleted realm. A worker has
    rendered the site's pages."""
    files = {
        "person.tsx": PERSON, "post.tsx": POST, "index.json": post("old bytes"),
        "ada.json": card("person", "Person", {"name": "Ada"}, {}),
        "notes/one.txt": "the first note",
        # This file is too large for a row of the database, so it is stored in the blob storage.
        "big.bin": "0123456789" * 7000,
    }  # fmt: skip
    imported(folder / "ada", ADAS, files, "--public")
    manage("publish_realm", ADAS, SITE)
    imported(folder / "ada", ADAS, {"index.json": post("newer bytes")})
    manage("publish_realm", ADAS, SITE)
    ben = card("person", "Person", {"name": "Ben"}, {})
    imported(folder / "ben", BENS, {"person.tsx": PERSON, "index.json": ben, "secret.txt": "."})
    imported(folder / "gone", GONE, {"a.txt": "a"})
    manage("delete_realm", GONE, "--yes")


def waiting(folder: Path) -> None:
    """Publishes a realm while no worker runs, so the new pages stay unrendered."""
    imported(folder / "ada", ADAS, {"index.json": post("bytes that wait")})
    manage("publish_realm", ADAS, SITE, "--no-wait")


def rights(port: int) -> None:
    """Lets two users read Ben's realm, and all signed-in users read Ada's realm. One of the two
    users is deleted later."""
    given = {BENS: ("ben", {"@cyn:localhost": ["read"], "@ghost:localhost": ["read"]}),
             ADAS: ("ada", {"users": ["read"]})}  # fmt: skip
    for realm, (owner, permissions) in given.items():
        data = {"type": "permissions", "attributes": {"permissions": permissions}}
        ask(port, "PATCH", f"{realm}_permissions", realm_token(port, owner, realm), {"data": data})


def realm_token(port: int, name: str, realm: str) -> str:
    """Returns the token that the replica gives to a user for a realm."""
    from django.conf import settings

    now = int(time.time())
    claims = {"user": f"@{name}:localhost", "sessionRoom": "", "iat": now, "exp": now + 600}
    token = jwt.encode(claims, str(settings.REALM_SECRET_SEED), algorithm="HS256")
    return str(json.loads(ask(port, "POST", f"{ORIGIN}/_realm-auth", token, {}))[realm])


# --- Files -------------------------------------------------------------------------------------


def card(module: str, name: str, attributes: Any, links: dict[str, str]) -> str:
    """Returns the text of a card's JSON file. The card's class is `name` in the file `module`."""
    relationships = {key: {"links": {"self": link}} for key, link in links.items()}
    adopts = {"adoptsFrom": {"module": f"./{module}", "name": name}}
    data = {"attributes": attributes, "relationships": relationships, "meta": adopts}
    return json.dumps({"data": {"type": "card", **data}})


def post(body: str) -> str:
    """Returns the text of the JSON file of the site's front page."""
    return card("post", "Post", {"title": "Home", "body": body}, {"author": "./ada"})


def imported(folder: Path, realm: str, files: dict[str, str], *options: str) -> None:
    """Writes files to a folder and imports the folder into a realm."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    manage("import_realm", str(folder), realm, *options)


# --- Processes ---------------------------------------------------------------------------------


def manage(*arguments: str) -> None:
    """Runs a management command with the release's manage.py."""
    subprocess.run([sys.executable, "manage.py", *arguments], check=True)


def start(process: Any) -> "subprocess.Popen[bytes]":
    """Starts a process of the release."""
    environment = {**os.environ, **process.environment}
    return subprocess.Popen(process.command, env=environment)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Terminates a process, and waits until the process has ended."""
    process.terminate()
    process.wait()


def ask(port: int, method: str, url: str, token: str = "", body: Any = None) -> str:
    """Requests a public URL from the replica and returns the body of the response. Raises OSError
    if the request fails or the response has an error status."""
    host, _, path = url.partition("://")[2].partition("/")
    headers = {"Host": host, "Accept": "*/*", "Authorization": token}
    kind = {"Content-Type": "application/vnd.api+json"} if body is not None else {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}", data, {**headers, **kind}, method=method
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def wait_for(port: int) -> None:
    """Waits until the replica on `port` answers. Raises OSError after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ask(port, "GET", f"{ORIGIN}/base/mod.ts")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            # Workers find the replica only after the replica's sidecar, a separate process, has
            # reported the replica's address to the database.
            time.sleep(2)
            return


def free_port() -> int:
    """Returns a port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
