"""The document that Chromium makes of a page, after its scripts have run."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def page_data(path: Path) -> Any:
    """What the page of a sweep has packed into it."""
    packed = re.search(r'id="data">([^<]*)<', path.read_text(encoding="utf-8"))
    assert packed is not None
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium executable to open the page in")


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    """The document that Chromium makes of a file, after its scripts have run; `scheme` is light or dark."""

    def dom(path: Path, scheme: str = "light") -> str:
        # 0 is dark, and 1 light.
        options = f"--blink-settings=preferredColorScheme={int(scheme != 'dark')} "
        options += "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        options += " --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=2000"
        command = [str(CHROMIUM), *options.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
        messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return "\n".join([done.stdout, *messages])

    return dom
