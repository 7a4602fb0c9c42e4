"""The wheel, installed as a user would, once for all tests. `tests/run` builds it, of the binary that the other tests run."""

import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import BINARY, ROOT


@pytest.fixture(scope="session")
def wheel():
    """The wheel, which is not older than what it is made of."""
    [path] = (ROOT / "target" / "test-wheel").glob("*.whl")
    with zipfile.ZipFile(path) as parts:
        for name in parts.namelist():
            if name.startswith("decagon_lake/"):
                assert parts.read(name) == (ROOT / "python" / name).read_bytes(), f"{path} is old; tests/run makes it"
        [binary] = [name for name in parts.namelist() if name.endswith(".data/scripts/decagon-lake")]
        assert parts.read(binary) == BINARY.read_bytes(), f"{path} is old; tests/run makes it"
    return path


@pytest.fixture(scope="session")
def venv(wheel, tmp_path_factory):
    """A new virtual environment with the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel], check=True)
    return folder


@pytest.fixture(scope="session")
def packages(venv):
    """Where its packages are."""
    [found] = (venv / "lib").glob("python*/site-packages")
    return found


@contextmanager
def with_duckdb(packages):
    """Lets the environment see the DuckDB of the tests for a while. Other tests of this session need it without."""
    [others] = {path for path in map(Path, sys.path) if (path / "duckdb").is_dir()}
    link = packages / "others.pth"
    link.write_text(f"{others}\n")
    try:
        yield
    finally:
        link.unlink()
