"""`deploy/` says what happens: its files are valid and name what the binary has, and a lake that its schedules keep is
exact. No scheduler runs here: stand-ins do what each scheduler is documented to do with these files."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import types
from datetime import timedelta
from pathlib import Path

import hcl2
import pytest
import yaml
from conftest import BINARY, DOCS, KEY, ROOT, environment
from truth import assert_exact

sys.path.insert(0, str(ROOT / "tests" / "support"))

DEPLOY = ROOT / "deploy"
GUIDE = (DEPLOY / "README.md").read_text()
TEXTS = [*DOCS, *sorted(p for d in (DEPLOY, ROOT / "examples") for p in d.rglob("*") if p.is_file())]
INSTALLED = "/usr/local/bin/decagon-lake"
# How the unit names it: systemd looks it up.
NAMED = "ExecStart=decagon-lake "
VENV = Path(sys.executable).parent


def section(title):
    return GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def block(title, language):
    [found] = re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)
    return found


def shown(*arguments):
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=True, env=environment()).stdout


@pytest.fixture(scope="module")
def definition():
    """The flags of each command, and all variables, from the binary's own definition."""
    listed = shown("--help").split("Commands:")[1].split("\nOptions:")[0]
    commands = [name for name in re.findall(r"^  (\w+) ", listed, re.MULTILINE) if name != "help"]
    helps = {name: shown(name, "--help") for name in commands}
    # This one has commands of its own.
    helps["policy"] += shown("policy", "test", "--help")
    flags = {name: set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", text, re.MULTILINE)) for name, text in helps.items()}
    return flags, set(re.findall(r"DECAGON_\w+", "".join(helps.values())))


def typed(path):
    """Each command of this program in a text: its name and flags."""
    text = path.read_text().replace("\\\n", " ")
    if path.name == "cronjob.yaml":
        [container] = pod(documents()[1])["containers"]
        text = "decagon-lake " + " ".join(container["args"])
    if path.suffix == ".py":
        text = " ".join(re.findall(r'"([^"\n]*)"', text))
    for name, rest in re.findall(r"decagon-lake(?::[\d.]+)? +([a-z]+)\b([^\n|;`)]*)", text):
        yield name, re.findall(r"(?<!\S)--[a-z][\w-]*", re.split(r"[<>&]| (?=decagon-lake )", rest)[0])


def test_every_command_and_flag_is_one_of_the_binary(definition):
    flags, _ = definition
    seen, files = [], set()
    for path in TEXTS:
        for name, used in typed(path):
            if name not in flags and not used:
                continue  # prose: "decagon-lake keeps …"
            assert name in flags, f"{path}: {name}"
            for flag in used:
                assert flag in flags[name], f"{path}: {name} {flag}"
                seen.append(flag)
                files.add(path.name)
    assert len(seen) >= 15, seen
    assert files >= {"cronjob.yaml", "decagon-lake.service", "decagon_lake_dag.py", "export.yml", "README.md", "hourly.sh",
                     "delta.md", "engines.md", "operations.md", "stores.md"}


def test_every_flag_in_prose_is_one_of_the_binary(definition):
    known = set().union(*definition[0].values())
    others = r"aws s3api |cargo |npm |docker |sha256sum |gh attestation |kubectl |useradd |node_exporter|gcloud |aws configure|systemctl |journalctl "
    seen = 0
    for path in (*DOCS, DEPLOY / "README.md"):
        for line in path.read_text().splitlines():
            for flag in re.findall(r"(?<![\w-])--[a-z][\w-]+", line):
                assert flag in known or re.search(others, line), f"{path}: {flag}"
                seen += flag in known
    assert seen > 30


def test_every_variable_is_one_of_the_binary(definition):
    seen = [(path, name) for path in TEXTS for name in re.findall(r"DECAGON_\w+", path.read_text())]
    for path, name in seen:
        assert name in definition[1], f"{path}: {name}"
    assert len(seen) > 20 and len({path for path, _ in seen}) > 6


def tool(*arguments):
    """Runs a validator and returns its complaints; nothing if there are none."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, env=environment(NO_COLOR=1))
    # A unit with a key that systemd does not know is ignored with a warning, and 0.
    return f"{done.returncode}: {done.stdout}{done.stderr}" if done.returncode or "Unknown" in done.stderr else ""


def kubernetes(path):
    return tool(VENV / "kubernetes-validate", "--strict", path)


def github(path):
    return tool(VENV / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)


def docker(path):
    return tool(VENV / "hadolint", "--no-color", path)


def unit(path):
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing: it comes with systemd"
    path.write_text(path.read_text().replace(NAMED, f"ExecStart={BINARY} "))
    if path.suffix == ".timer":
        shutil.copy(DEPLOY / "systemd" / "decagon-lake.service", path.parent)
        unit(path.with_suffix(".service"))
    said = tool("systemd-analyze", "verify", "--man=no", path)
    if path.suffix == ".service":
        said += tool("systemd-analyze", "security", "--offline=true", "--threshold=20", path)
    return said


@pytest.mark.parametrize("file, validate, right, wrong", [
    ("kubernetes/cronjob.yaml", kubernetes, "concurrencyPolicy: Forbid", "concurrencyPolicies: Forbid"),
    ("github/export.yml", github, "runs-on: ubuntu-latest", "run-on: ubuntu-latest"),
    ("docker/Dockerfile", docker, "FROM rust:1.95-bookworm", "FROM rust"),
    ("systemd/decagon-lake.service", unit, "ProtectClock=yes", "ProtectClocks=yes"),
    ("systemd/decagon-lake.service", unit, "CapabilityBoundingSet=\n", ""),
    ("systemd/decagon-lake.service", unit, NAMED, "ExecStart=decagon-pond "),
    ("systemd/decagon-lake.timer", unit, "OnCalendar=hourly", "OnCalendar=hurly"),
])
def test_the_file_is_valid_and_its_validator_would_notice(file, validate, right, wrong, tmp_path):
    text = (DEPLOY / file).read_text()
    copy = tmp_path / Path(file).name
    copy.write_text(text)
    assert validate(copy) == ""
    assert right in text
    copy.write_text(text.replace(right, wrong))
    assert validate(copy) != ""


def test_the_image_is_built_of_what_it_is_given(tmp_path):
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*" and all(line.startswith("!") for line in ignored[1:])
    for line in ignored[1:]:
        source, target = ROOT / line[1:], tmp_path / line[1:]
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    host = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, text=True, check=True).stdout.strip()
    # It reads the manifest as a build does, and builds nothing.
    subprocess.run(["cargo", "fetch", "--locked", "--offline", "--target", host], cwd=tmp_path, check=True)
    assert not [p for p in (ROOT / "src").rglob("*.rs") if re.search(r'include_(str|bytes)!\("(\.\./)+tests', p.read_text())]


def documents():
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "cronjob.yaml").read_text()))


def pod(cronjob):
    return cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_the_pod_is_as_small_as_it_is_said_to_be():
    account, cronjob = documents()
    spec = pod(cronjob)
    [container] = spec["containers"]
    assert spec["serviceAccountName"] == account["metadata"]["name"]
    assert spec["terminationGracePeriodSeconds"] > 9 and cronjob["spec"]["concurrencyPolicy"] == "Forbid"
    assert int(container["resources"]["limits"]["memory"].removesuffix("Mi")) * 2**20 > 370e6
    assert container["securityContext"]["readOnlyRootFilesystem"] and spec["securityContext"]["runAsNonRoot"]
    [mount], [volume] = container["volumeMounts"], spec["volumes"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables["DECAGON_API_KEY_FILE"] == f"{mount['mountPath']}/api-key" and mount["name"] == volume["name"]
    fails = cronjob["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]
    assert fails["containerName"] == container["name"]
    assert not {0, 4, 5, 130} & set(fails["values"])


@pytest.mark.parametrize("cloud, kind", [("aws", "aws"), ("gcp", "google")])
def test_terraform_grants_what_the_tests_try_and_names_what_it_has(cloud, kind):
    path = DEPLOY / "terraform" / cloud / "main.tf"
    text = path.read_text()
    read = hcl2.loads(text)
    entries = [*read["resource"], *read.get("data", [])]
    made = {f"{of.strip(chr(34))}.{name.strip(chr(34))}" for entry in entries for of, names in entry.items() for name in names}
    named = set(re.findall(rf"\b({kind}_\w+\.\w+)\.", text))
    assert named and named <= made
    variables = {name.strip('"') for entry in read["variable"] for name in entry}
    assert set(re.findall(r"\bvar\.(\w+)", text)) == variables
    [permissions] = re.findall(r'\$\{path\.module\}/([^"]+)"', text)
    assert (path.parent / permissions).resolve() in {DEPLOY / "aws" / "policy.json", DEPLOY / "gcp" / "role.yaml"}
    assert not re.search(r'"(s3:|storage\.)\w', text), "there is no second list"
    granted = yaml.safe_load((path.parent / permissions).read_text())
    assert set(re.findall(r"\blocal\.role\.(\w+)", text)) <= set(granted), "what is read there is there"
    filled_in = set(re.findall(r'"([A-Z]+)", var\.', text))
    assert filled_in == set(re.findall(r"\b(BUCKET|PREFIX)\b", json.dumps(granted)))


def plain(value):
    """A value of HCL, without the quotes that its texts keep."""
    if isinstance(value, dict):
        return {key.strip('"'): plain(inner) for key, inner in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.strip('"') if isinstance(value, str) else value


def resource(cloud, kind):
    read = plain(hcl2.loads((DEPLOY / "terraform" / cloud / "main.tf").read_text()))
    [found] = [names["lake"] for entry in read["resource"] for of, names in entry.items() if of == kind]
    return found


def test_lifecycle_rules_of_aws_are_taken_and_terraform_has_the_same(tmp_path):
    from servers import BUCKET, Moto

    text = (DEPLOY / "aws" / "lifecycle.json").read_text()
    rules = json.loads(text.replace("PREFIX", "decagon"))
    moto = Moto(tmp_path).start()
    try:
        client = moto.client()
        client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=rules)
        assert client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"] == rules["Rules"]
    finally:
        moto.stop()
    in_terraform = []
    for rule in resource("aws", "aws_s3_bucket_lifecycle_configuration")["rule"]:
        same = {"ID": rule["id"], "Status": rule["status"], "Filter": {"Prefix": rule["filter"][0]["prefix"]}}
        for block in rule.get("abort_incomplete_multipart_upload", []):
            same["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": block["days_after_initiation"]}
        for block in rule.get("noncurrent_version_expiration", []):
            same["NoncurrentVersionExpiration"] = {"NoncurrentDays": block["noncurrent_days"]}
        for block in rule.get("expiration", []):
            same["Expiration"] = {"ExpiredObjectDeleteMarker": block["expired_object_delete_marker"]}
        in_terraform.append(same)
    assert in_terraform == json.loads(text.replace("PREFIX", "${var.prefix}"))["Rules"]


def test_lifecycle_rules_of_google_are_those_of_terraform():
    text = (DEPLOY / "gcp" / "lifecycle.json").read_text()
    names = {"age": "age", "days_since_noncurrent_time": "daysSinceNoncurrentTime", "matches_prefix": "matchesPrefix"}
    in_terraform = [
        {"action": {"type": rule["action"][0]["type"]},
         "condition": {names[name]: value for name, value in rule["condition"][0].items()}}
        for rule in resource("gcp", "google_storage_bucket")["lifecycle_rule"]
    ]
    assert in_terraform == json.loads(text.replace("PREFIX", "${var.prefix}"))["rule"]


def kept_exact(api, lake, run):
    """Three runs of a schedule, and time that passes between them."""
    for hours in (0, 7, 30):
        api.advance(hours=hours)
        run()
        assert_exact(lake, api.conversations())


def own_api(api):
    """The additional settings that lead to the simulated account."""
    return f"DECAGON_BASE_URL={api.url}\nDECAGON_REQUESTS_PER_SECOND=0\n"


def test_three_runs_of_cron(simulate, tmp_path):
    api = simulate("--conversations", 310, "--days", 9)
    lake, folder = tmp_path / "lake", tmp_path / ".config" / "decagon-lake"
    folder.mkdir(parents=True)
    settings = block("cron", "sh")
    assert "s3://bucket/decagon" in settings
    (folder / "env").write_text(settings.replace("s3://bucket/decagon", str(lake)) + own_api(api))
    (folder / "api-key").write_text(f"{KEY}\n")
    minute, *rest, command = block("cron", "crontab").strip().split(" ", 5)
    assert 0 <= int(minute) < 60 and rest == ["*"] * 4
    assert "%" not in command, "cron takes it for a line break"

    def run():
        cron = {"HOME": str(tmp_path), "LOGNAME": "me", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
        assert INSTALLED in command
        done = subprocess.run(["/bin/sh", "-c", command.replace(INSTALLED, str(BINARY))], env=cron, cwd=tmp_path,
                              capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "cron would mail it"

    kept_exact(api, lake, run)
    reports = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    assert [report["outcome"] for report in reports] == ["done"] * 3
    assert reports[2]["request"]["window"]["from"] is not None, "an increment"
    assert 'last_run_exit_code{command="sync"' in (folder / "sync.prom").read_text()


class Unit:
    """A service as systemd would start it (systemd.exec(5)), below another root."""

    def __init__(self, root):
        self.root = root
        self.settings = {}
        text = (root / "usr/lib/systemd/system/decagon-lake.service").read_text()
        for line in re.findall(r"^(\w+=.*)$", text.split("[Service]")[1], re.MULTILINE):
            name, value = line.split("=", 1)
            self.settings.setdefault(name, []).append(value)

    def resolved(self, text):
        places = {"%S": "/var/lib", "%C": "/var/cache", "%d": "/run/credentials"}
        for specifier, path in places.items():
            text = text.replace(specifier, f"{self.root}{path}")
        assert "%" not in text, text
        return text

    def one(self, name):
        [value] = self.settings[name]
        return value

    def run(self):
        for kind, place in (("StateDirectory", "var/lib"), ("CacheDirectory", "var/cache")):
            (self.root / place / self.one(kind)).mkdir(parents=True, exist_ok=True)
        credential, source = self.one("LoadCredential").split(":")
        (self.root / "run/credentials").mkdir(parents=True, exist_ok=True)
        shutil.copy(f"{self.root}{source}", self.root / "run/credentials" / credential)
        env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        env.update(self.resolved(entry).split("=", 1) for entry in self.settings["Environment"])
        file = Path(f"{self.root}{self.one('EnvironmentFile').removeprefix('-')}")
        if file.exists():
            env.update(entry.split("=", 1) for entry in shlex.split(file.read_text(), comments=True))
        return subprocess.run(shlex.split(f"{self.root}/usr/bin/{self.one('ExecStart')}"), env=env, cwd="/", capture_output=True, text=True)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_three_runs_of_systemd(simulate, tmp_path, elsewhere):
    api = simulate("--conversations", 310, "--days", 9)
    # The guide's own steps, below another root, with stand-ins for the commands that change this machine. `apt` unpacks the
    # package; test_packages.py runs its scripts.
    [package] = (ROOT / "target" / "test-packages").glob("decagon-lake_*.deb")
    (tmp_path / "stand-ins").mkdir()
    (tmp_path / "key").write_text(KEY)
    for name, more in (("apt", f'dpkg-deb -x "{package}" "{tmp_path}"'), ("systemctl", "")):
        (tmp_path / "stand-ins" / name).write_text(f'#!/bin/sh\necho {name} "$@" >>"{tmp_path}/calls"\n{more}\n')
        (tmp_path / "stand-ins" / name).chmod(0o755)
    steps = re.sub(r" /etc/", rf" {tmp_path}/etc/", block("systemd", "sh")).replace("FILE_WITH_THE_KEY", f"{tmp_path}/key")
    path = f"{tmp_path}/stand-ins:{os.environ['PATH']}"
    subprocess.run(["bash", "-eu", "-c", steps], cwd=ROOT, env=environment(PATH=path), check=True, capture_output=True)
    calls = (tmp_path / "calls").read_text()
    service = Unit(tmp_path)
    assert re.search(r"^apt install \./decagon-lake_.*\.deb$", calls, re.MULTILINE)
    assert "systemctl enable --now decagon-lake.timer\n" in calls
    assert (tmp_path / "etc/decagon-lake/api-key").stat().st_mode & 0o77 == 0

    lake = tmp_path / "var/lib/decagon-lake/lake"
    settings = own_api(api)
    if elsewhere:
        lake = tmp_path / "elsewhere"
        settings += f"# goes before the unit's own\nDECAGON_LAKE={lake}\n"
    (tmp_path / "etc/decagon-lake/env").write_text(settings)

    def run():
        done = service.run()
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["outcome"] == "done"

    kept_exact(api, lake, run)
    assert 'last_run_exit_code{command="sync"' in (tmp_path / "var/cache/decagon-lake/sync.prom").read_text()


class Fail(Exception):
    pass


class Skip(Exception):
    pass


@pytest.fixture
def airflow(monkeypatch):
    """The DAG, imported with a stand-in for the parts of Airflow that it uses, which records its settings."""
    loaded = types.SimpleNamespace(dag=None, task=None, function=None)

    def dag(**settings):
        loaded.dag = settings
        return lambda build: build

    def task(**settings):
        loaded.task = settings

        def decorate(function):
            loaded.function = function
            return lambda: None

        return decorate

    class Connection:
        @staticmethod
        def get(name):
            assert name == "decagon"
            return types.SimpleNamespace(password=KEY)

    sdk = types.ModuleType("airflow.sdk")
    sdk.Connection, sdk.dag, sdk.task = Connection, dag, task
    exceptions = types.ModuleType("airflow.sdk.exceptions")
    exceptions.AirflowFailException, exceptions.AirflowSkipException = Fail, Skip
    for name, module in {"airflow": types.ModuleType("airflow"), "airflow.sdk": sdk, "airflow.sdk.exceptions": exceptions}.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("decagon_lake_dag", DEPLOY / "airflow" / "decagon_lake_dag.py")
    loaded.module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded.module)
    return loaded


def program(tmp_path, name, script):
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / name).chmod(0o755)
    return f"{tmp_path}/bin:{os.environ['PATH']}"


def test_three_runs_of_airflow(airflow, simulate, tmp_path, monkeypatch):
    api = simulate("--conversations", 310, "--days", 9)
    assert airflow.dag["max_active_runs"] == 1 and airflow.dag["catchup"] is False
    assert airflow.task["execution_timeout"] > timedelta(hours=3) and airflow.task["retries"] > 0
    for name, value in {"PATH": f"{BINARY.parent}:{os.environ['PATH']}", "DECAGON_BASE_URL": api.url,
                        "DECAGON_REQUESTS_PER_SECOND": "0"}.items():
        monkeypatch.setenv(name, value)
    lake = tmp_path / "lake"
    command = [str(lake) if word == airflow.module.LAKE else word for word in airflow.module.COMMAND]
    monkeypatch.setattr(airflow.module, "COMMAND", command)
    kept_exact(api, lake, lambda: json.loads(airflow.function()))


@pytest.mark.parametrize("code, raised", [
    (2, Fail), (3, Fail), (4, RuntimeError), (5, RuntimeError), (6, Fail), (7, Skip), (70, Fail), (130, RuntimeError),
    ("kill", RuntimeError),
])
def test_what_airflow_makes_of_an_exit_code(airflow, tmp_path, monkeypatch, code, raised):
    monkeypatch.setenv("PATH", program(tmp_path, "decagon-lake", "kill -9 $$" if code == "kill" else f"exit {code}"))
    with pytest.raises(raised) as caught:
        airflow.function()
    assert caught.type is raised


def test_airflow_s_time_out_asks_the_run_to_stop(airflow, tmp_path, monkeypatch):
    # More than a pipe holds: once it is written, the DAG is reading.
    script = f"""trap 'echo staged >{tmp_path}/stopped; exit 130' TERM
head -c 300000 /dev/zero
while :; do kill -ALRM $PPID; done"""
    monkeypatch.setenv("PATH", program(tmp_path, "decagon-lake", script))

    def time_out(*_):
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, time_out)
    try:
        with pytest.raises(TimeoutError):
            airflow.function()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "stopped").read_text() == "staged\n"


@pytest.mark.parametrize("code, ends_with", [(0, 0), (3, 3), (6, 6), (7, 0)])
def test_the_script_of_github(tmp_path, code, ends_with):
    workflow = yaml.safe_load((DEPLOY / "github" / "export.yml").read_text())
    assert workflow["concurrency"] == {"group": "decagon-lake", "cancel-in-progress": False}
    [step] = [step for step in workflow["jobs"]["sync"]["steps"] if step.get("name") == "Sync"]
    path = program(tmp_path, "docker", f'echo "$@" >>{tmp_path}/calls\necho \'{{"run_id": 1}}\'\nexit {code}')
    summary = tmp_path / "summary"
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, capture_output=True, text=True,
                          env=environment(PATH=path, GITHUB_STEP_SUMMARY=summary))
    assert done.returncode == ends_with and ("::notice::" in done.stdout) == (code == 7)
    assert summary.read_text() == '```json\n{"run_id": 1}\n```\n'
    calls = (tmp_path / "calls").read_text()
    assert calls.endswith(" sync --json\n") and all(f"--env {name} " in calls for name in step["env"])
