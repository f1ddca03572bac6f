"""Runs nginx on this machine with deploy/nginx.conf. nginx forwards requests to web services on
ports of this machine.

Everything that concerns TLS is removed from the configuration, and host names, ports and paths are
replaced (`rendered`). The rest is unchanged, so that tests and benchmarks run the operator's nginx.
If nginx has looked for an answer in its cache, the answer has the additional header `X-Edge` with
the cache status, for example `HIT` or `MISS`.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from settings.environment import BASE_DIR
from tests.support.cluster import Answer, wait_until
from tests.support.servers.reaper import mark

CONFIGURATION = BASE_DIR / "deploy" / "nginx.conf"
#: nginx serves the admin at this host name.
ADMIN_HOST = "admin.localhost"
#: An old and a new text for the argument `replace` of `edge`. With the old text, the cache's key
#: contains the time of the request, so nginx uses a cached answer for one second at most. With the
#: new text, nginx uses a cached answer for as long as the replica allows.
ONE_SECOND = ('"~^(\\d+)" $1;', 'default "the only one";')
#: Headers that belong to a single request or connection. `differences` ignores them.
OF_THE_REQUEST = {
    "x-boxel-cache", "x-realm-replica", "date", "age", "x-edge", "connection", "keep-alive",
    "transfer-encoding",
}  # fmt: skip
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:" + os.environ.get("PATH", "")

_MAIN = """
daemon off;
{user}
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log {access_log};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    add_header X-Edge "$upstream_cache_status" always;
    include {folder}/realms.conf;
}}
"""


def nginx() -> str | None:
    """Returns the path of the program nginx, or None if nginx is not installed."""
    return shutil.which("nginx", path=_PATH)


def need_nginx() -> None:
    """Skips the test if nginx is not installed."""
    if nginx() is None:
        pytest.skip("there is no `nginx` here")


@dataclass(frozen=True)
class Edge:
    """A running nginx."""

    port: int
    folder: Path
    pid: int

    def reload(self) -> None:
        """Makes nginx reload its configuration. The old worker processes finish their requests."""
        os.kill(self.pid, signal.SIGHUP)

    @property
    def errors(self) -> str:
        """The warnings and errors in nginx's log."""
        return (self.folder / "error.log").read_text()


def differences(got: Answer, wanted: Answer) -> list[str]:
    """Compares the status, the headers and the body of two answers. Returns a text for each
    difference."""
    found = [f"{got.status} and not {wanted.status}"] if got.status != wanted.status else []
    names = {*got.headers, *wanted.headers} - OF_THE_REQUEST
    found += [
        f"{name}: {got.headers.get(name)!r} and not {wanted.headers.get(name)!r}"
        for name in sorted(names)
        if got.headers.get(name) != wanted.headers.get(name)
    ]
    if got.body != wanted.body:
        found.append(f"{got.body[:200]!r} and not {wanted.body[:200]!r}")
    return found


def rendered(folder: Path, port: int) -> str:
    """Returns the text of deploy/nginx.conf, adapted to this machine."""
    text = CONFIGURATION.read_text()
    # Remove TLS, the redirect from port 80, and the server that refuses unlisted host names.
    text = re.sub(r"^ssl_\w+ .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(#[^\n]*\n)*server \{\n[^}]*default_server;[^}]*\}\n", "", text, flags=re.M)
    text = text.replace("server_name realms.example.com .example.net;", "server_name _;")
    text = text.replace("server_name admin.example.com;", f"server_name {ADMIN_HOST};")
    text = text.replace("listen 443 ssl http2;", f"listen 127.0.0.1:{port};")
    text = text.replace("/etc/realms/balancer/replicas.conf", str(folder / "replicas.conf"))
    text = text.replace("/var/cache/realms-edge", str(folder / "cache"))
    assert "listen 443" not in text and "ssl" not in text and "example" not in text
    return text


@contextmanager
def edge(
    folder: Path,
    port: int,
    upstream_ports: Sequence[int],
    *,
    workers: int = 1,
    access_log: str = "off",
    replace: Sequence[tuple[str, str]] = (),
) -> Iterator[Edge]:
    """Runs nginx on a port of 127.0.0.1. nginx forwards to web services on the ports
    `upstream_ports`. Creates `folder` for the configuration, the cache and the log. For each pair
    in `replace`, the second text replaces the first text in the configuration."""
    program = nginx()
    assert program is not None, "there is no `nginx` here"
    folder.mkdir(parents=True, exist_ok=True)
    text = rendered(folder, port)
    for old, new in replace:
        assert old in text, f"deploy/nginx.conf has no {old!r}"
        text = text.replace(old, new)
    (folder / "realms.conf").write_text(text)
    (folder / "replicas.conf").write_text(
        "".join(
            f"server 127.0.0.1:{each} max_fails=1 fail_timeout=2s;\n" for each in upstream_ports
        )
    )
    main = folder / "nginx.conf"
    # nginx's workers stay root, so that they can read the test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(_MAIN.format(folder=folder, user=user, workers=workers, access_log=access_log))
    process = subprocess.Popen(
        (program, "-e", str(folder / "error.log"), "-c", str(main), "-p", str(folder)),
        stdin=subprocess.DEVNULL,
        env={**os.environ, **mark()},
        start_new_session=True,
    )
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), "nginx up")
        assert process.poll() is None, (folder / "error.log").read_text()
        yield Edge(port, folder, process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
