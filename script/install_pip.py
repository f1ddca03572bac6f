"""Installs pip into a virtual environment, for a Python without ensurepip, the standard module that
installs pip."""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

# The package index. pip reads the same environment variable and has the same default.
INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")

if __name__ == "__main__":
    request = urllib.request.Request(
        f"{INDEX}/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    wheels = [
        file for file in files if file["filename"].endswith(".whl") and not file.get("yanked")
    ]
    newest = wheels[-1]
    with tempfile.TemporaryDirectory() as folder:
        wheel = os.path.join(folder, newest["filename"])
        urllib.request.urlretrieve(newest["url"], wheel)
        command = [sys.executable, f"{wheel}/pip", "install", "--quiet", "--no-index", wheel]
        subprocess.run(command, check=True)
