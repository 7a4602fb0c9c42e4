"""Finds the binary that was installed with this package."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Iterator


class BinaryNotFoundError(FileNotFoundError):
    """The binary is not where an installer puts it."""


def find_binary() -> str:
    """The path of the binary. It never comes from PATH, because what is there may have another version."""
    name = "decagon-lake" + (sysconfig.get_config_var("EXE") or "")
    tried = list(dict.fromkeys(_folders()))
    for folder in tried:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise BinaryNotFoundError(
        f"{name} is in none of {', '.join(tried)}; install it again: pip install --force-reinstall decagon-lake"
    )


def _folders() -> Iterator[str]:
    """Where the installers put it, relative to this package, then where this Python's scripts are."""
    # Links are kept: uv can install links to files in its cache, and the binary is not beside those.
    package = Path(os.path.abspath(__file__)).parent
    # A virtual environment, `pip install --prefix` and `--user`: PREFIX/lib/python3.13/site-packages/decagon_lake.
    depth, scripts = (2, "Scripts") if sys.platform == "win32" else (3, "bin")
    if package.parent.name in ("site-packages", "dist-packages") and len(package.parents) > depth:
        yield str(package.parents[depth] / scripts)
    # `pip install --target FOLDER`: FOLDER/decagon_lake.
    yield str(package.parent / scripts)
    yield sysconfig.get_path("scripts")
