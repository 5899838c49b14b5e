"""The files of `deploy/`: each is read by the tool that will read it, or by the nearest that is here."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import options

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
README = (DEPLOY / "README.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# In seconds; what README promises of SIGTERM.
ENDS_WITHIN = 10


def values(words: Sequence[str]) -> Mapping[str, Any]:
    """What a command line after `-m pipeline` asks for; UserError if the project would refuse it."""
    command, *given = words
    parts = [re.fullmatch(r"--([a-z_]+)[= ](.*)", word, re.S) for word in given]
    assert all(parts), f"not all of them --name=value: {given}"
    asked = {part[1]: part[2] for part in parts if part}
    return options.values(command, asked)


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(min|h|)", text).groups()
    return int(number) * {"": 1, "min": 60, "h": 3600}[unit]


def program(file: Path, *lines: str) -> Path:
    """A shell script of these lines, which can be started."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(("#!/bin/bash", *lines, "")))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


# systemd


def unit(name: str) -> Mapping[str, list[tuple[str, str]]]:
    """A unit's sections, each a list, as a key may stand twice."""
    found: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(section, []).append((key, value))
    return found


def environment_file(name: str) -> Mapping[str, str]:
    parser = RawConfigParser(delimiters="=", strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string("[all]\n" + (DEPLOY / "systemd" / name).read_text())
    return {key: value.strip('"') for key, value in parser["all"].items()}


def verified(folder: Path, service: str) -> subprocess.CompletedProcess[str]:
    """What systemd says of the units, with an interpreter that is there."""
    tool = shutil.which("systemd-analyze")
    if not tool:
        pytest.skip("there is no systemd-analyze")
    folder.mkdir()
    (folder / "regatta@.service").write_text(service)
    shutil.copy(DEPLOY / "systemd" / "regatta@.timer", folder)
    return subprocess.run(
        [tool, "verify", "--man=no", "./regatta@mnist.service", "./regatta@mnist.timer"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_systemd_understands_every_line_of_its_units(tmp_path: Path) -> None:
    service = (DEPLOY / "systemd" / "regatta@.service").read_text()
    assert "ExecStart=/opt/regatta/bin/python " in service
    service = service.replace("/opt/regatta/bin/python", sys.executable)
    found = verified(tmp_path / "units", service)
    # It ends with 0 for a key that it does not know, and says so.
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    mistaken = verified(tmp_path / "mistaken", service.replace("TimeoutStopSec", "TimeoutStopSecs"))
    assert "TimeoutStopSecs" in mistaken.stderr, "the test can fail"


def test_systemd_leaves_a_search_the_time_it_needs() -> None:
    service = dict(unit("regatta@.service")["Service"])
    assert (service["Type"], service["KillSignal"], service["KillMode"]) == ("oneshot", "SIGTERM", "mixed")
    assert seconds(service["TimeoutStopSec"]) > ENDS_WITHIN
    search = shlex.split(environment_file("mnist.env")["SEARCH"])
    assert seconds(service["TimeoutStartSec"]) > values(["search", *search])["timeout"]
    assert {"Persistent", "RandomizedDelaySec"} <= dict(unit("regatta@.timer")["Timer"]).keys()


def test_systemd_tries_again_what_may_get_better() -> None:
    service = dict(unit("regatta@.service")["Service"])
    assert service["Restart"] == "on-failure"
    assert service["SuccessExitStatus"].split() == ["75", "130", "143"]
    assert service["RestartPreventExitStatus"].split() == ["2", "75", "130", "143"]


def test_the_command_of_the_service_is_one_that_the_project_knows() -> None:
    words = dict(unit("regatta@.service")["Service"])["ExecStart"].replace("%i", "mnist").split()
    assert words[1:3] == ["-m", "pipeline"]
    assert words[-1] == "$SEARCH"
    asked = values([*words[3:-1], *shlex.split(environment_file("mnist.env")["SEARCH"])])
    assert (asked["task"], asked["study"]) == ("mnist", "mnist")


def test_what_the_service_reads_is_there() -> None:
    files = [value for key, value in unit("regatta@.service")["Service"] if key == "EnvironmentFile"]
    assert files == ["/etc/regatta/regatta.env", "/etc/regatta/%i.env"]
    assert environment_file("regatta.env") == {}, "all of it is an example"


# cron


def crontab() -> tuple[Mapping[str, str], str]:
    """The settings of the crontab, and its one line, as cron would hand it to the shell."""
    lines = [line for line in (DEPLOY / "cron" / "crontab").read_text().splitlines() if line]
    lines = [line for line in lines if not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines[:-1])
    *schedule, command = lines[-1].split(maxsplit=5)
    assert all(re.fullmatch(r"[\d*/,-]+", field) for field in schedule)
    assert len(schedule) == 5
    assert not re.search(r"(?<!\\)%", command), "cron takes a bare % for the end of the line"
    return settings, command.replace("\\%", "%")


@pytest.mark.parametrize(("code", "mailed"), [(0, False), (75, False), (1, True), (143, True)])
def test_the_crontab_searches_and_mails_what_failed(tmp_path: Path, code: int, mailed: bool) -> None:
    settings, command = crontab()
    arguments = tmp_path / "arguments"
    lines = (f'printf "%s\\n" "$@" >{arguments}', "echo trained", "echo slowly >&2", f"exit {code}")
    program(tmp_path / "regatta" / ".venv" / "bin" / "python", *lines)
    # As cron does: a short environment, its settings as they are.
    found = subprocess.run(
        [settings.pop("SHELL"), "-c", command],
        env={"HOME": str(tmp_path), **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    (log,) = (tmp_path / "regatta" / "logs").iterdir()
    assert re.fullmatch(r"mnist-\d{4}-\d\d-\d\d\.log", log.name)
    assert log.read_text() == "trained\nslowly\n"
    assert found.stderr == ""
    assert found.stdout == (f"search ended with {code}, see {log}\n" if mailed else "")
    words = arguments.read_text().split()
    assert words[:2] == ["-m", "pipeline"]
    assert values(words[2:])["task"] == "mnist"


def test_the_crontab_says_that_its_folder_is_missing(tmp_path: Path) -> None:
    settings, command = crontab()
    shell = settings.pop("SHELL")
    environment = {"HOME": str(tmp_path / "nobody"), **settings}
    found = subprocess.run(
        [shell, "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert "nobody/regatta: No such file" in found.stderr


# Slurm

SCRIPT = DEPLOY / "slurm" / "search.sbatch"


class Cluster:
    """A node without Slurm: its programs do the little that the script asks of them, and write it down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requeued = folder / "requeued"
        self.arguments = folder / "arguments"
        self.started = folder / "started"
        self.jobs: list[subprocess.Popen[str]] = []
        self.step = folder / "step"
        # Its own options come first. As Slurm's own, it hands no SIGTERM on, but kills what it has started.
        program(
            folder / "bin" / "srun",
            "while [[ $1 == -* ]]; do shift; done",
            '"$@" $BESIDES &',
            f"echo $! >{self.step}",
            "trap 'kill -KILL $!' TERM",
            "wait $!",
            "code=$?",
            # Of a trap that has ended the wait.
            "kill -0 $! 2>/dev/null && { wait $!; code=$?; }",
            "exit $code",
        )
        # Without --batch it tells the steps of a job, never its script.
        program(
            folder / "bin" / "scancel",
            f'[[ $* == "--signal=TERM $OWN" && -e {self.step} ]] || exit 1',
            f'kill -TERM "$(<{self.step})"',
        )
        program(
            folder / "bin" / "scontrol",
            '[[ $2 == "$OWN" || $3 == "$OWN" ]] || exit 1',
            'if [[ $1 == show ]]; then echo "JobId=$3"; echo "   JobState=$STATE Reason=None"',
            f'elif [[ $1 == requeue ]]; then echo "$2" >>{self.requeued}',
            "else exit 1; fi",
        )
        self.search = program(
            folder / "bin" / "searching",
            f'printf "%s\\n" "$@" >{self.arguments}',
            '[[ $CODE ]] && exit "$CODE"',
            f"trap 'echo stopped >>{self.arguments}; kill $!; exit 143' TERM",
            "sleep 60 &",
            f"touch {self.started}",
            "wait",
        )

    def start(self, **environment: str) -> subprocess.Popen[str]:
        # As of the one job of an array that has the whole array's number.
        usual = {
            "SLURM_JOB_ID": "117",
            "SLURM_ARRAY_JOB_ID": "117",
            "SLURM_ARRAY_TASK_ID": "1",
            "OWN": "117_1",
        }
        usual |= {"SLURM_CPUS_PER_TASK": "4"}
        asked = {"REGATTA_PYTHON": str(self.search), "STATE": "RUNNING", "CODE": "", "BESIDES": ""}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        job = subprocess.Popen(
            ["bash", str(SCRIPT)],
            env={**os.environ, **usual, **asked, **environment, "PATH": path},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A group of its own, which can be ended as one.
            start_new_session=True,
        )
        self.jobs.append(job)
        return job

    def end(self) -> None:
        """Leaves nothing running, whatever a test has found."""
        for job in self.jobs:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.communicate()

    def wait_for_start(self) -> None:
        deadline = time.monotonic() + 30
        while not self.started.exists():
            assert time.monotonic() < deadline, "the search did not start"
            time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    node = Cluster(tmp_path)
    yield node
    node.end()


def test_the_script_is_one_that_bash_and_shellcheck_take() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    if not shutil.which("shellcheck"):
        pytest.skip("there is no shellcheck")
    found = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_slurm_is_asked_for_what_the_script_needs() -> None:
    asked = re.findall(r"^#SBATCH (\S+)$", SCRIPT.read_text(), re.M)
    assert {"--requeue", "--open-mode=append", "--gres=gpu:1"} <= set(asked)
    (signalled,) = (part for part in asked if part.startswith("--signal"))
    assert int(re.fullmatch(r"--signal=B:TERM@(\d+)", signalled)[1]) > ENDS_WITHIN
    # An array index for each task that the script knows by itself.
    (tasks,) = re.findall(r"REGATTA_TASKS:-([^}]+)", SCRIPT.read_text())
    assert f"--array=0-{len(tasks.split()) - 1}" in asked


@pytest.mark.parametrize(("state", "again"), [("RUNNING", True), ("PREEMPTED", True), ("CANCELLED", False)])
def test_a_search_that_slurm_stops_is_told_and_put_in_the_queue_again(
    cluster: Cluster, state: str, again: bool
) -> None:
    job = cluster.start(STATE=state)
    cluster.wait_for_start()
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=30)
    assert err == ""
    assert job.returncode == 143
    assert cluster.arguments.read_text().endswith("stopped\n"), "it was told by SIGTERM"
    assert cluster.requeued.exists() == again, "what somebody cancels must not come back"
    assert ("goes on when the job starts again" in out) == again
    if again:
        assert cluster.requeued.read_text() == "117_1\n"


def test_a_job_of_no_array_is_told_by_its_number(cluster: Cluster) -> None:
    job = cluster.start(SLURM_ARRAY_JOB_ID="", SLURM_ARRAY_TASK_ID="", OWN="117")
    cluster.wait_for_start()
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == 143
    assert cluster.requeued.read_text() == "117\n"


def test_a_step_that_slurm_stops_itself_is_put_in_the_queue_again(cluster: Cluster) -> None:
    job = cluster.start(CODE="143")
    job.communicate(timeout=30)
    assert cluster.requeued.read_text() == "117_1\n"


@pytest.mark.parametrize(("code", "ends_with"), [(0, 0), (1, 1), (2, 2), (75, 0), (137, 137)])
def test_a_search_that_ends_by_itself_is_not_put_in_the_queue_again(
    cluster: Cluster, code: int, ends_with: int
) -> None:
    job = cluster.start(CODE=str(code))
    out, err = job.communicate(timeout=30)
    assert (job.returncode, err) == (ends_with, "")
    assert not cluster.requeued.exists()
    assert ("another search has the study" in out) == (code == 75)


@pytest.mark.parametrize(("index", "task"), [(0, "mnist"), (1, "fashion_mnist"), (2, "imdb")])
def test_each_index_of_the_array_searches_another_task(cluster: Cluster, index: int, task: str) -> None:
    cluster.start(CODE="0", SLURM_ARRAY_TASK_ID=str(index)).communicate(timeout=30)
    words = cluster.arguments.read_text().split()
    assert words[:2] == ["-m", "pipeline"]
    asked = values(words[2:])
    # The study has the task's name, so no two indices meet.
    assert (asked["task"], asked["study"], asked["trials"]) == (task, None, 64)


def test_an_index_without_a_task_is_refused(cluster: Cluster) -> None:
    job = cluster.start(SLURM_ARRAY_TASK_ID="2", REGATTA_TASKS="iris digits")
    _, err = job.communicate(timeout=30)
    assert job.returncode == 2
    assert err == "search.sbatch: the array's index must be below 2, the number of tasks, but is 2\n"


@pytest.mark.slow
def test_a_real_search_is_stopped_by_the_script_and_goes_on(cluster: Cluster, workplace: Path) -> None:
    own = {"REGATTA_PYTHON": sys.executable, "REGATTA_TASKS": "digits iris", "PYTHONPATH": str(ROOT)}
    # Short trainings, as what is asked is how they end.
    own["BESIDES"] = "--epochs=2 --engine=fit --export=none"
    first = cluster.start(**own, REGATTA_TRIALS="5000", PYTHONUNBUFFERED="1")
    assert first.stdout
    for line in first.stdout:
        # The first trial that was drawn has ended, so there is something to go on with.
        if re.match(r"trial +1\b", line):
            break
    first.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    out, err = first.communicate(timeout=60)
    assert time.monotonic() - asked < 60
    assert first.returncode == 143, out + err
    assert "interrupted; the same command goes on with the study" in err
    assert cluster.requeued.read_text() == "117_1\n"
    second = cluster.start(**own, REGATTA_TRIALS="2")
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, out + err
    assert "champion: " in out
    assert cluster.requeued.read_text() == "117_1\n", "it is not put in the queue a second time"


# Kubernetes

# podFailurePolicy is stable since 1.31.
VERSIONS = ("1.31", "latest")


def validate(document: Mapping[str, Any], version: str) -> None:
    """Checks against Kubernetes's own schema; a field that it does not know is a fault, too."""
    import kubernetes_validate

    number = kubernetes_validate.latest_version() if version == "latest" else version
    kubernetes_validate.validate(dict(document), number, strict=True)


def cronjob() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    claim, job = yaml.safe_load_all((DEPLOY / "kubernetes" / "cronjob.yaml").read_text())
    return claim, job


def job_template() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "kubernetes" / "mlflow" / "job_template.yaml").read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version: str) -> None:
    import kubernetes_validate

    for document in (*cronjob(), job_template()):
        validate(document, version)
    mistaken = job_template()
    mistaken["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 60
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriodSecond"):
        validate(mistaken, version)


def test_the_nightly_job_is_alone_and_has_the_time_it_needs() -> None:
    claim, job = cronjob()
    spec = job["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert pod["terminationGracePeriodSeconds"] > ENDS_WITHIN
    assert spec["activeDeadlineSeconds"] > values(container["args"])["timeout"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = container["volumeMounts"]
    homes = [Path(entry["value"]) for entry in container["env"]]
    assert [entry["name"] for entry in container["env"]] == ["PIPELINE_HOME", "PIPELINE_CACHE"]
    assert all(home.is_relative_to(mount["mountPath"]) for home in homes), "they outlive the pod"


def test_the_nightly_job_tries_again_what_may_get_better() -> None:
    spec = cronjob()[1]["spec"]["jobTemplate"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    ended, disrupted = spec["podFailurePolicy"]["rules"]
    assert ended["action"] == "FailJob"
    assert ended["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 75]}
    assert (disrupted["action"], disrupted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    # What podFailurePolicy asks for.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_both_jobs_run_the_image_in_the_same_way() -> None:
    nightly = cronjob()[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    once = job_template()["spec"]["template"]["spec"]
    own = {"name", "image", "args", "command"}
    (first,), (second,) = nightly.pop("containers"), once.pop("containers")
    assert nightly == once
    assert {key: first[key] for key in first.keys() - own} == {
        key: second[key] for key in second.keys() - own
    }


def test_mlflow_takes_its_settings_and_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import projects

    monkeypatch.chdir(ROOT)
    config = json.loads((DEPLOY / "kubernetes" / "mlflow" / "kubernetes_config.json").read_text())
    found = projects._parse_kubernetes_config(config)
    assert found["kube-job-template"] == job_template()
    # Of the template MLflow asks a namespace, and that the first container's env is a list if it is there.
    assert found["kube-job-template"]["metadata"]["namespace"]
    assert isinstance(found["kube-job-template"]["spec"]["template"]["spec"]["containers"][0]["env"], list)
    image = cronjob()[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.partition(":")[0] == found["repository-uri"]


def test_mlflow_passes_parameters_on_to_the_image() -> None:
    from mlflow.projects.utils import load_project

    project = load_project(str(DEPLOY / "kubernetes" / "mlflow"))
    assert project.docker_env == {
        "image": cronjob()[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"]
    }
    parameters = {"task": "mnist", "trials": "64"}
    for name in ("main", "search", "ensemble"):
        command = "search" if name == "main" else name
        given = parameters if command == "search" else {"study": "mnist", "members": "4"}
        words = shlex.split(project.get_entry_point(name).compute_command(given, None))
        assert words[:4] == ["python", "-m", "pipeline", command]
        joined = [f"{key}={value}" for key, value in zip(words[4::2], words[5::2], strict=True)]
        assert values([command, *joined])


# Docker


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what follows each, continued lines joined."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line]


def test_what_the_image_is_made_of_is_there_and_is_sent() -> None:
    ignored = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    assert set(copied) == sent
    assert all((ROOT / source).exists() for source in copied)
    # All that pyproject.toml reads to make the wheel.
    project, wheel = PYPROJECT["project"], PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["readme"], *project["license-files"], *wheel["packages"], *wheel["force-include"]}
    assert {"pyproject.toml", *needed} == sent


def test_signals_reach_the_search_in_the_image() -> None:
    found = dict(instructions())
    assert found["STOPSIGNAL"] == "SIGTERM"
    # In this form there is no shell that would keep the signal to itself.
    entry, first = json.loads(found["ENTRYPOINT"]), json.loads(found["CMD"])
    assert entry == ["python", "-m", "pipeline"]
    assert values(first)["task"] == "iris"


def test_the_image_is_for_nobody_special_and_keeps_what_must_last() -> None:
    found = dict(instructions())
    pod = cronjob()[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["securityContext"]
    assert found["USER"] == f"{pod['runAsUser']}:{pod['runAsGroup']}"
    assert pod["runAsUser"] > 0
    variables = dict(part.split("=", 1) for part in found["ENV"].split())
    volumes = json.loads(found["VOLUME"])
    for name in ("PIPELINE_HOME", "PIPELINE_CACHE", "HOME"):
        assert any(Path(variables[name]).is_relative_to(volume) for volume in volumes)
    assert found["WORKDIR"] in volumes, "MLflow's own record lies there"


def test_the_image_is_for_the_cpu_unless_an_extra_is_asked_for() -> None:
    found = dict(instructions())
    assert found["ARG"] == 'EXTRAS=""'
    assert re.match(r"python:3\.11-slim", found["FROM"])
    (install,) = (rest for name, rest in instructions() if name == "RUN" and "pip install" in rest)
    for extras, asked in (("", "/src"), ("gpu", "/src[gpu]"), ("gpu,gp", "/src[gpu,gp]")):
        shown = install.split("&&")[0].replace("pip install", 'printf "%s "')
        environment = {"EXTRAS": extras, "PATH": os.environ["PATH"]}
        words = subprocess.check_output(["sh", "-c", shown], env=environment, text=True).split()
        assert words == ["--no-cache-dir", asked]


def test_docker_finds_no_fault_with_the_image() -> None:
    # The client ends with an error where no daemon answers.
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no Docker daemon")
    command = ["docker", "build", "--check", "-f", "deploy/docker/Dockerfile", "."]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_extra_gpu_is_the_same_jax_with_cuda() -> None:
    from importlib.metadata import metadata

    project = PYPROJECT["project"]
    (gpu,) = project["optional-dependencies"]["gpu"]
    name, extra, version = re.fullmatch(r"(\w+)\[(\w+)\]==(.+)", gpu).groups()
    assert f"{name}=={version}" in project["dependencies"]
    # pip passes over an extra that a package does not have with no more than a warning.
    assert extra in (metadata(name).get_all("Provides-Extra") or [])


# README


def commands() -> list[str]:
    """The lines of README's shell blocks."""
    return [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]


def first_cells(head: str) -> list[str]:
    """The first cell of each row of README's table with this head."""
    table = README.partition(f"| {head} |")[2].partition("\n\n")[0]
    return [row.split("|")[1] for row in table.splitlines()[2:]]


def test_readme_names_files_that_are_there() -> None:
    for file in re.findall(r"deploy/[\w./@*-]+", "\n".join(commands())):
        assert list(ROOT.glob(file)), file
    named = set()
    for cell in first_cells("file | for"):
        names = [Path(name) for name in re.findall(r"`([^`]+)`", cell)]
        # Of several in one folder, the first one names it.
        named |= {DEPLOY / names[0].parent / name.name for name in names}
    assert all(path.exists() for path in named)
    ready = [file for file in DEPLOY.glob("*/*") if file.suffix != ".dockerignore"]
    assert named == set(ready), "each file has its row"


def test_readme_names_every_variable_that_the_files_set() -> None:
    texts = [file.read_text() for file in DEPLOY.rglob("*") if file.is_file()]
    names = {name for text in texts for name in re.findall(r"\bPIPELINE_[A-Z]+\b", text)}
    assert {"PIPELINE_HOME", "PIPELINE_CACHE", "PIPELINE_STORAGE"} <= names
    read = "\n".join(file.read_text() for file in (ROOT / "pipeline").rglob("*.py"))
    for name in names:
        assert f"| `{name}` |" in README
        assert f'"{name}"' in read, "the project reads it"


def test_an_image_is_built_and_tagged_before_it_is_run_or_pushed() -> None:
    there: set[str] = set()
    pushed = set()
    for line in commands():
        words = shlex.split(line)
        match words[:2]:
            case ["docker", "build"]:
                there.add(words[words.index("-t") + 1])
            case ["docker", "run"]:
                assert there & {*words}, line
            case ["docker", "tag"]:
                assert words[2] in there, line
                there.add(words[3])
            case ["docker", "push"]:
                assert words[2] in there, line
                pushed.add(words[2])
    # What the cluster starts.
    assert f"image: {pushed.pop()}\n" in (DEPLOY / "kubernetes" / "cronjob.yaml").read_text()


def test_the_parameters_in_readme_are_known() -> None:
    known = {option.name for table in options.COMMANDS.values() for option in table}
    text = README.replace("\\%", "%")
    lines = [line for line in commands() if "-P " in line or " search --" in line]
    assert len(lines) == 2
    for line in lines:
        given = re.findall(r"(?:-P |--)([a-z_]+)=(\S+)", line.partition(" search ")[2])
        assert values(["search", *(f"--{name}={value}" for name, value in given)])
    assert set(re.findall(r"`--([a-z_]+)=", text)) <= known


def test_readme_tells_the_exit_codes() -> None:
    cells = " ".join(first_cells("code | meaning | what the files do"))
    assert re.findall(r"\d+", cells) == ["0", "1", "2", "75", "130", "143"]
