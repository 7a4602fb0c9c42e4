"""What people install: the Debian package, the archive, and the static binary in it. tests/run has made them from the built
binary. They are installed below a scratch root, in a sandbox that cannot change this machine."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import KEY, ROOT, environment
from test_deploy import docker, github
from truth import assert_exact

PACKAGES = ROOT / "target" / "test-packages"
STATIC = ROOT / "target" / "static" / "decagon-lake"
SERVICE = "usr/lib/systemd/system/decagon-lake.service"


def made(pattern):
    found = list(PACKAGES.glob(pattern))
    assert len(found) == 1, f"tests/run makes one {pattern} in {PACKAGES}: {found}"
    return found[0]


@pytest.fixture(scope="session")
def deb():
    return made("decagon-lake_*.deb")


def output(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **options).stdout


def test_the_package_holds_what_people_look_for(deb, tmp_path):
    fields = dict(re.findall(r"^ ?([\w-]+): (.*)$", output("dpkg-deb", "-f", deb), re.MULTILINE))
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert fields["Package"] == "decagon-lake" and fields["Version"] == f"{version}-1"
    # The number is that of the machine that linked the binary.
    assert re.match(r"libc6 \(>= [\d.]+\), systemd-standalone-sysusers \| systemd-sysusers$", fields["Depends"])
    output("dpkg-deb", "-x", deb, tmp_path)
    listed = {line.split()[5]: line.split()[:2] for line in output("dpkg-deb", "-c", deb).splitlines()}
    assert all(owner == "0/0" or owner == "root/root" for _, owner in listed.values())
    assert listed["./etc/decagon-lake/env"][0] == "-rw-r-----"
    assert output(tmp_path / "usr/bin/decagon-lake", "--version") == f"decagon-lake {version}\n"
    page = output("gzip", "-dc", tmp_path / "usr/share/man/man1/decagon-lake.1.gz")
    assert re.search(r"^\.TH decagon-lake 1 ", page, re.MULTILINE) and r"partition\-by" in page
    for name in ("bash-completion/completions/decagon-lake", "zsh/vendor-completions/_decagon-lake",
                 "fish/vendor_completions.d/decagon-lake.fish"):
        assert "backfill" in (tmp_path / "usr/share" / name).read_text(), name
    loaded = output("bash", "-c", '. "$0" && complete -p decagon-lake', tmp_path / "usr/share/bash-completion/completions/decagon-lake")
    assert loaded.startswith("complete ")
    for name in ("README.md", "copyright", "changelog.gz", "changelog.Debian.gz"):
        assert (tmp_path / "usr/share/doc/decagon-lake" / name).stat().st_size > 0, name
    for kind in ("service", "timer"):
        packed = tmp_path / SERVICE.replace("service", kind)
        assert packed.read_text() == (ROOT / "deploy/systemd" / packed.name).read_text()
    # Every line of the example is a comment, so that installing changes nothing.
    settings = (tmp_path / "etc/decagon-lake/env").read_text()
    assert all(line.startswith("#") for line in settings.splitlines()) and "#DECAGON_LAKE=" in settings


class Machine:
    """A scratch root with dpkg's database and the packages that this one depends on. Its scripts run with DPKG_ROOT, in a
    sandbox in which all but that root is read-only and no systemd is to be seen."""

    def __init__(self, root):
        self.root = root
        for folder in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc", "usr/bin", "tmp"):
            (root / folder).mkdir(parents=True)
        status = "".join(
            f"Package: {name}\nStatus: install ok installed\nArchitecture: {output('dpkg', '--print-architecture')}"
            f"Version: 999\nMaintainer: nobody\nDescription: a stand-in\n{more}\n"
            for name, more in (("libc6", ""), ("systemd", "Provides: systemd-sysusers\n"))
        )
        (root / "var/lib/dpkg/status").write_text(status)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")

    def within(self, *command):
        sandbox = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--tmpfs", "/tmp",
                   "--bind", self.root, self.root, "--unshare-all", "--uid", "0", "--gid", "0"]
        return subprocess.run([str(part) for part in (*sandbox, *command)], capture_output=True, text=True,
                              env=environment(PATH="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"))

    def dpkg(self, *arguments):
        log = self.root / "var/log/dpkg.log"
        log.parent.mkdir(exist_ok=True)
        done = self.within("dpkg", f"--root={self.root}", f"--log={log}", "--force-script-chrootless", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def installed(self):
        """Its version, if it is installed and set up."""
        query = ["dpkg-query", f"--admindir={self.root}/var/lib/dpkg", "-W", "-f", "${db:Status-Status} ${Version}", "decagon-lake"]
        done = subprocess.run(query, capture_output=True, text=True)
        return done.stdout

    def timer_is_on(self):
        return (self.root / "etc/systemd/system/timers.target.wants/decagon-lake.timer").is_symlink()

    def enable(self):
        done = self.within("systemctl", f"--root={self.root}", "enable", "decagon-lake.timer")
        assert done.returncode == 0, done.stderr


def newer(deb, folder):
    """The same package as of a later version, whose example of settings differs."""
    tree = folder / "newer"
    output("dpkg-deb", "-R", deb, tree)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*", "Version: 999.0-1", control.read_text(), flags=re.MULTILINE))
    with open(tree / "etc/decagon-lake/env", "a") as example:
        example.write("# A new example.\n")
    output("dpkg-deb", "-b", "-Znone", "--root-owner-group", tree, folder / "newer.deb")
    return folder / "newer.deb"


def test_install_upgrade_remove_and_purge(deb, tmp_path):
    machine = Machine(tmp_path / "root")
    shutil.copy(deb, machine.root / "tmp/first.deb")
    newer(deb, tmp_path).rename(machine.root / "tmp/newer.deb")
    settings, key = machine.root / "etc/decagon-lake/env", machine.root / "etc/decagon-lake/api-key"

    machine.dpkg("--install", machine.root / "tmp/first.deb")
    assert machine.installed().startswith("installed ")
    assert not machine.timer_is_on(), "nothing runs before somebody enables it"
    [user] = re.findall(r"^decagon-lake:.*$", (machine.root / "etc/passwd").read_text(), re.MULTILINE)
    assert user.split(":")[5:] == ["/var/lib/decagon-lake", "/usr/sbin/nologin"]
    # systemd finds the command by its name.
    service = (machine.root / SERVICE).read_text()
    assert re.search(r"^ExecStart=decagon-lake ", service, re.MULTILINE) and "\nUser=decagon-lake\n" in service

    machine.enable()
    settings.write_text("DECAGON_LAKE=s3://mine/lake\n")
    key.write_text(KEY)
    machine.dpkg("--force-confdef", "--force-confold", "--install", machine.root / "tmp/newer.deb")
    assert machine.installed() == "installed 999.0-1"
    assert settings.read_text() == "DECAGON_LAKE=s3://mine/lake\n", "an upgrade keeps the settings"
    assert machine.timer_is_on()

    lake = machine.root / "var/lib/decagon-lake/lake"
    lake.mkdir(parents=True)
    (lake / "part-0.parquet").write_text("rows")
    metrics = machine.root / "var/cache/decagon-lake/sync.prom"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("")
    machine.dpkg("--remove", "decagon-lake")
    assert machine.installed().startswith("config-files ")
    assert not (machine.root / "usr/bin/decagon-lake").exists() and not (machine.root / SERVICE).exists()
    assert settings.exists() and key.exists() and lake.exists()

    said = machine.dpkg("--purge", "decagon-lake")
    assert not settings.parent.exists() and not metrics.parent.exists() and not machine.timer_is_on()
    assert (lake / "part-0.parquet").read_text() == "rows" and "a lake may be in it" in said
    left = [path for path in machine.root.rglob("*decagon*") if not path.is_relative_to(lake.parent)]
    assert left == []


def test_a_purge_leaves_no_empty_folder(deb, tmp_path):
    machine = Machine(tmp_path / "root")
    shutil.copy(deb, machine.root / "tmp/first.deb")
    machine.dpkg("--install", machine.root / "tmp/first.deb")
    (machine.root / "var/lib/decagon-lake").mkdir()
    said = machine.dpkg("--purge", "decagon-lake")
    assert not (machine.root / "var/lib/decagon-lake").exists() and "a lake may be in it" not in said


def test_the_archive_is_whole(tmp_path):
    archive = made("decagon-lake-*.tar.gz")
    sums = output("sha256sum", "--check", "SHA256SUMS", cwd=PACKAGES)
    assert f"{archive.name}: OK" in sums and f"{made('*.deb').name}: OK" in sums
    output("tar", "-xzf", archive, "-C", tmp_path)
    [top] = tmp_path.iterdir()
    assert archive.name == f"{top.name}.tar.gz"
    files = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}
    assert files == {
        "decagon-lake", "README.md", "CHANGELOG.md", "LICENSE", "share/man/man1/decagon-lake.1", "share/completions/decagon-lake.bash",
        "share/completions/decagon-lake.zsh", "share/completions/decagon-lake.fish", "share/systemd/decagon-lake.service",
        "share/systemd/decagon-lake.timer",
    }
    assert (top / "decagon-lake").read_bytes() == STATIC.read_bytes()
    # What cargo-binstall asks for.
    manifest = (ROOT / "Cargo.toml").read_text()
    host = output("rustc", "--print", "host-tuple").strip()
    named = re.search(r'pkg-url = ".*/(.*)"', manifest)[1]
    version = output(top / "decagon-lake", "--version").split()[1]
    assert named.replace("{ version }", version).replace("{ target }", host) == archive.name


# A module of the name service that kills whoever loads it. It needs no library, so that every static binary can load it.
MODULE = "__attribute__((constructor)) static void kills(void) { __builtin_trap(); }\n"


def test_the_static_binary_needs_nothing_and_loads_nothing(simulate, tmp_path):
    """As another user, on a read-only root that holds the binary and names such a module for every look-up."""
    api = simulate("--conversations", 310, "--days", 9)
    root, data = tmp_path / "root", tmp_path / "data"
    for folder in ("etc", "proc", "dev", "data", "lib", "lib64", "usr/lib"):
        (root / folder).mkdir(parents=True)
    data.mkdir()
    shutil.copy(STATIC, root / "decagon-lake")
    (root / "etc/hosts").write_text("127.0.0.1 api.test\n")
    (root / "etc/nsswitch.conf").write_text("hosts: deadly files dns\npasswd: deadly files\n")
    (tmp_path / "deadly.c").write_text(MODULE)
    output("cc", "-shared", "-fPIC", "-nostdlib", "-o", root / "lib/libnss_deadly.so.2", tmp_path / "deadly.c")
    for folder in ("lib64", "usr/lib"):
        shutil.copy(root / "lib/libnss_deadly.so.2", root / folder)

    def within(*command):
        sandbox = ["bwrap", "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--bind", data, "/data", "--unshare-user",
                   "--unshare-pid", "--unshare-ipc", "--uid", "65532", "--gid", "65532", "--clearenv",
                   "--setenv", "DECAGON_API_KEY", KEY, "--setenv", "DECAGON_LAKE", "/data/lake",
                   "--setenv", "DECAGON_BASE_URL", api.url.replace("127.0.0.1", "api.test"),
                   "--setenv", "DECAGON_ALLOW_HTTP", "true", "--setenv", "DECAGON_REQUESTS_PER_SECOND", "0"]
        done = subprocess.run([str(part) for part in (*sandbox, "/decagon-lake", *command)], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stderr}"
        return done.stdout

    assert within("--version").startswith("decagon-lake ")
    within("check")
    assert json.loads(within("sync", "--json"))["outcome"] == "done"
    assert_exact(data / "lake", api.conversations())


@pytest.mark.parametrize("file, validate, right, wrong", [
    (".github/workflows/ci.yml", github, "runs-on: macos-15", "run-on: macos-15"),
    (".github/workflows/release.yml", github, "needs: [publish]", "need: [publish]"),
    ("deploy/docker/Dockerfile.static", docker, "COPY decagon-lake", "ADD decagon-lake"),
])
def test_the_file_is_valid_and_its_validator_would_notice(file, validate, right, wrong, tmp_path):
    copy = tmp_path / Path(file).name
    text = (ROOT / file).read_text()
    copy.write_text(text)
    assert validate(copy) == ""
    assert right in text
    copy.write_text(text.replace(right, wrong))
    assert validate(copy) != ""


def test_the_images_differ_only_in_where_the_binary_comes_from():
    def image(name):
        text = (ROOT / "deploy/docker" / name).read_text()
        return re.findall(r"^(?:COPY.* (\S+)|((?:USER|ENTRYPOINT|CMD).*))$", text.split("FROM scratch\n")[1], re.MULTILINE)

    assert image("Dockerfile") == image("Dockerfile.static") != []
