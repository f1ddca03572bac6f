"""Tests `deploy/balance`, which lists for nginx the replicas that are ready, with fake programs."""

import os
import subprocess
from pathlib import Path

import pytest

from settings.environment import BASE_DIR

#: A fake nginx. It notes its reloads, and fails while the file `broken` exists.
NGINX = """\
#!/bin/sh
[ ! -e "$FOLDER/broken" ] || exit 1
[ "$1" = -s ] && cp "$FOLDER/replicas.conf" "$FOLDER/loaded" && echo reload >> "$FOLDER/reloads"
exit 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with a fake nginx, a fake curl that always succeeds, and two replicas."""
    for name, text in (("nginx", NGINX), ("curl", "#!/bin/sh\nexit 0\n")):
        program = tmp_path / name
        program.write_text(text)
        program.chmod(0o755)
    (tmp_path / "nginx.pid").write_text("1\n")
    (tmp_path / "replicas").write_text("10.0.0.1:8000\n10.0.0.2:8000\n")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FOLDER": str(folder),
        "REALM_BALANCER_LIST": str(folder / "replicas"),
        "REALM_BALANCER_CONF": str(folder / "replicas.conf"),
        "REALM_BALANCER_PID": str(folder / "nginx.pid"),
    }


def balance(folder: Path, passes: int = 1) -> None:
    """Runs the script for one pass. Further passes follow without the second between them."""
    text = (BASE_DIR / "deploy" / "balance").read_text()
    loop = "while sleep 1; do pass; done"
    assert text.rstrip().endswith(loop)
    repaired = f'rm -f "$FOLDER/broken"; {"pass; " * (passes - 1)}'
    script = text.replace(loop, repaired)
    subprocess.run(["sh", "-c", script], env=environment(folder), check=False, timeout=20)


def loaded(folder: Path) -> str:
    return (folder / "loaded").read_text()


def test_a_drained_replica_is_listed_as_down(folder: Path) -> None:
    (folder / "replicas").write_text("10.0.0.1:8000\n10.0.0.2:8000 drain\n")
    balance(folder)
    assert loaded(folder) == (
        "server 10.0.0.1:8000 max_fails=1 fail_timeout=2s;\nserver 10.0.0.2:8000 down;  # drained\n"
    )


def test_a_list_that_stays_the_same_is_loaded_once(folder: Path) -> None:
    balance(folder, passes=4)
    assert (folder / "reloads").read_text() == "reload\n"


def test_a_reload_that_failed_is_tried_again(folder: Path) -> None:
    balance(folder)
    (folder / "replicas").write_text("10.0.0.1:8000\n10.0.0.2:8000 drain\n")
    (folder / "broken").touch()
    balance(folder, passes=2)
    assert "10.0.0.2:8000 down" in loaded(folder)


def test_a_new_run_repeats_the_reload_of_a_killed_run(folder: Path) -> None:
    balance(folder)
    # The earlier run was killed after it had written the list, and before the reload.
    text = (folder / "replicas.conf").read_text()
    (folder / "loaded").write_text("an older list")
    balance(folder)
    assert loaded(folder) == text
