"""From nothing to a queried demo lake and a page in a browser, in each way that the README installs the program, by its own
commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, blocks, environment
from installed import with_duckdb
from test_packages import Machine, made

sys.path.insert(0, str(ROOT / "tests" / "support"))
from browser import chromium, opened

# What a newcomer has besides the program: the tools of a system, and DuckDB.
DUCKDB = Path(sys.executable).parent / "duckdb"
WAYS = ["pip install", "sudo apt install", "cargo install"]
[TRY_IT] = [block for block in blocks("sh") if block.startswith("decagon-lake demo")]


def shell(script, cwd, path, **more):
    """Runs commands as they stand in the README."""
    env = environment(PATH=os.pathsep.join(map(str, (*path, "/usr/bin", "/bin"))), HOME=cwd, **more)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def by_pip(block, folder):
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    bin = folder / "venv" / "bin"
    # The wheel comes from the checkout in place of the package index.
    shell(block, folder, [bin], PIP_NO_INDEX=1, PIP_FIND_LINKS=ROOT / "target" / "test-wheel", PIP_DISABLE_PIP_VERSION_CHECK=1)
    return bin


def by_apt(block, folder):
    """dpkg installs it below a scratch root, where apt would find what it depends on."""
    [name] = re.findall(r"^sudo apt install \./(\S+\.deb)$", block, re.MULTILINE)
    deb = made("decagon-lake_*.deb")
    assert deb.name.rsplit("_", 1)[0] == name.rsplit("_", 1)[0], "the README names the package of this version"
    machine = Machine(folder / "root")
    machine.dpkg("--install", deb)
    return folder / "root" / "usr" / "bin"


def by_cargo(block, folder):
    env = environment(CARGO_INSTALL_ROOT=folder / "cargo", CARGO_TARGET_DIR=ROOT / "target")
    done = subprocess.run(["bash", "-c", block], cwd=ROOT, env=env, capture_output=True, text=True, timeout=3_600)
    assert done.returncode == 0, done.stderr
    return folder / "cargo" / "bin"


@pytest.mark.parametrize("way, install", zip(WAYS, [by_pip, by_apt, by_cargo]), ids=WAYS)
def test_from_nothing_to_a_page_in_a_browser(tmp_path, way, install):
    [block] = [block for block in blocks("sh") if block.startswith(way)]
    bin = install(block, tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    shutil.copy(DUCKDB, tools / "duckdb")
    home = tmp_path / "home"
    home.mkdir()
    assert shell("command -v decagon-lake", home, [bin, tools]).strip() == f"{bin}/decagon-lake"
    out = shell(TRY_IT, home, [bin, tools])
    # The last command's answer: a count and a rate, in a box.
    count, rate = re.findall(r"(\d+) │ +(0\.\d+) │", out)[-1]
    assert int(count) > 5_000
    report = json.loads(shell("decagon-lake report --lake demo-lake --out again.html --json", home, [bin]))
    tiles = {tile["name"]: tile["value"] for tile in report["sections"][0]["tiles"]}
    assert tiles["Conversations"] == int(count) and tiles["Deflection rate"] == pytest.approx(float(rate))
    figures = [figure for section in report["sections"] for figure in section["figures"]]
    with chromium() as browser:
        for width in (1280, 390):
            with opened(browser, home / "report.html", width=width) as page:
                assert page.locator("h1").inner_text() == "Decagon conversations"
                drawn = page.locator("figure.chart .plot svg[role=img]")
                drawn.first.wait_for()
                assert drawn.count() == len([figure for figure in figures if figure["chart"] and figure["rows"]]) > 15
                assert page.locator("#support .tile dd").first.inner_text() == f"{int(count):,}"
                sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
                assert len(set(page.evaluate(sizes))) == 1, "nothing is wider than the page"


def test_the_example_in_python(venv, packages, simulate, tmp_path):
    [example] = blocks("python")
    api = simulate("--conversations", 200)
    env = environment(DECAGON_API_KEY="simulated-key", DECAGON_BASE_URL=api.url, DECAGON_REQUESTS_PER_SECOND=0)
    with with_duckdb(packages):
        done = subprocess.run([venv / "bin" / "python", "-c", example], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("200 0 2024-") and "200 │" in done.stdout
