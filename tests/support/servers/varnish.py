"""Runs Varnish with deploy/varnish.vcl. Varnish forwards requests to a web service on a port of
this machine."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from settings.environment import BASE_DIR
from tests.support.cluster import free_ports, wait_until
from tests.support.servers.reaper import mark

CONFIGURATION = BASE_DIR / "deploy" / "varnish.vcl"
_PATH = f"/usr/local/sbin:/usr/sbin:{os.environ.get('PATH', '')}"


@contextmanager
def varnish(folder: Path, upstream_port: int) -> Iterator[int]:
    """Runs Varnish and yields its port. Varnish compiles its configuration with gcc, so the test is
    skipped if Varnish or gcc is not installed."""
    program = shutil.which("varnishd", path=_PATH)
    if program is None or shutil.which("gcc") is None:
        pytest.skip("there is no `varnishd` here, or no `gcc`")
    (port,) = free_ports(1)
    folder.mkdir()
    vcl = folder / "realms.vcl"
    text = CONFIGURATION.read_text()
    assert '.port = "8000";' in text
    vcl.write_text(text.replace('.port = "8000";', f'.port = "{upstream_port}";'))
    # With `-j none`, Varnish runs as the user of the test. No other user can read the test's
    # folder.
    command = (program, "-j", "none", "-F", "-n", str(folder / "work"), "-f", str(vcl),
               "-s", "malloc,16m", "-a", f"127.0.0.1:{port}", "-T", "none",
               "-p", "http_gzip_support=off", "-p", "http_range_support=off")  # fmt: skip
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **mark()}, start_new_session=True,
        )  # fmt: skip
    try:

        def up() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
            return True

        wait_until(up, "varnish up")
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
