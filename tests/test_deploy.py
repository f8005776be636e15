"""The files of deploy/: they parse, agree with the pinned versions and the config, and the SLURM script works.

There is no Docker, SLURM or Kubernetes here. tests/tracking/test_server.py runs the server's command; here `srun`,
`scontrol` and Ray are stand-ins that log their arguments, which Ray's own command line then parses.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cnnsweep.config import shipped
from cnnsweep.config.compose import compose

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or "ray" not in PINS, reason="executor=ray is not among the executors"
)


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


class TestCompose:
    (compose_file,) = documents("compose.yaml")
    services: Mapping[str, Any] = compose_file["services"]

    def test_the_server_has_the_tested_versions(self) -> None:
        built = self.services["server"]["build"]["dockerfile_inline"]
        for package in ("mlflow", "psycopg2-binary", "uvloop"):
            assert re.findall(rf"{package}==(\S+)", built) == [PINS[package]]
        assert self.services["server"]["image"].endswith(f":{PINS['mlflow']}")
        assert re.search(r":\d+\.\d+", self.services["database"]["image"]), "pinned"

    def test_the_server_waits_for_the_database_and_both_say_when_they_are_ready(self) -> None:
        assert self.services["server"]["depends_on"]["database"] == {"condition": "service_healthy"}
        assert all(service["healthcheck"]["test"][0] == "CMD" for service in self.services.values())

    def test_every_variable_is_in_the_example_and_no_password_is(self) -> None:
        used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
        lines = [line for line in (DEPLOY / "env.example").read_text().splitlines() if not line.startswith("#")]
        example = dict(line.split("=", 1) for line in lines if line)
        assert set(example) == used
        assert example["POSTGRES_PASSWORD"] == ""
        assert "/deploy/.env" in (ROOT / ".gitignore").read_text().split()

    def test_the_example_s_hosts_are_its_origins(self) -> None:
        example = (DEPLOY / "env.example").read_text()
        values = dict(re.findall(r"^MLFLOW_ALLOWED_(\w+)=(.*)", example, re.MULTILINE))
        assert values["ORIGINS"].split(",") == [f"http://{host}" for host in values["HOSTS"].split(",")]

    def test_volumes_that_are_used_are_declared(self) -> None:
        used = {mount.split(":")[0] for service in self.services.values() for mount in service["volumes"]}
        assert used == set(self.compose_file["volumes"])
        artifacts = next(o for o in self.services["server"]["command"] if o.startswith("--artifacts-destination"))
        assert f"artifacts:{artifacts.partition('=')[2]}" in self.services["server"]["volumes"]


class TestKubeRay:
    claim, job = documents("kuberay.yaml")
    cluster: Mapping[str, Any] = job["spec"]["rayClusterSpec"]
    pods: tuple[Mapping[str, Any], ...] = (
        cluster["headGroupSpec"]["template"]["spec"],
        *(group["template"]["spec"] for group in cluster["workerGroupSpecs"]),
    )

    def test_kinds(self) -> None:
        assert (self.job["apiVersion"], self.job["kind"]) == ("ray.io/v1", "RayJob")
        assert self.claim["spec"]["accessModes"] == ["ReadWriteOnce"]

    @needs_ray
    def test_the_version_of_ray(self) -> None:
        assert self.cluster["rayVersion"] == PINS["ray"]

    def test_all_pods_have_one_image_and_the_driver_the_sweep_s_folder(self) -> None:
        (image,) = {container["image"] for pod in self.pods for container in pod["containers"]}
        assert image in (DEPLOY / "Dockerfile").read_text()
        head, *workers = self.pods
        (mount,) = head["containers"][0]["volumeMounts"]
        (volume,) = head["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == self.claim["metadata"]["name"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], "/sweeps")
        assert not any("volumes" in pod for pod in workers)

    def test_workers_have_a_gpu_bounds_and_no_password(self) -> None:
        (group,) = self.cluster["workerGroupSpecs"]
        assert self.cluster["enableInTreeAutoscaling"] is True
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        (worker,) = group["template"]["spec"]["containers"]
        assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert "env" not in worker

    def test_the_driver_has_what_its_script_asks_for(self) -> None:
        (head,) = self.pods[0]["containers"]
        given = {variable["name"]: variable.get("value") for variable in head["env"]}
        asked = set(re.findall(r"\$\{(\w+):", (DEPLOY / "start_or_resume.sh").read_text()))
        assert asked - {"PYTHON"} <= set(given)
        assert given["FOLDER"].startswith("/sweeps/")
        assert int(given["GPUS"]) <= self.cluster["workerGroupSpecs"][0]["maxReplicas"]

    @needs_ray
    def test_the_driver_s_overrides_compose(self) -> None:
        script, *overrides = self.job["spec"]["entrypoint"].split()
        assert script == "start_or_resume"
        config = compose(["executor=ray", "tracking=server", *overrides, "tracking.uri=http://host:5000"])
        assert config.executor.address == "auto"
        assert not re.search(r"[$'\"\\;&|]", self.job["spec"]["entrypoint"]), "it passes through several shells"


def shellcheck() -> str | None:
    return shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.skipif(shellcheck() is None, reason="there is no shellcheck here")
@pytest.mark.parametrize("script", [*DEPLOY.glob("*.sh"), ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run([str(shellcheck()), script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


STANDINS = {
    "scontrol": 'if [ "$1" = show ]; then printf "node%s\\n" 1 2 3; fi',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": """
if [ "$1" = health-check ]; then exit 0; fi
trap 'echo "$$ ended" >> "$NOTES"; exit 0' TERM
while :; do sleep 0.05; done
""",
    "python": """
place=$(printf "%s\\n" "$@" | sed -n "s/^tracking.dir=//p")
mkdir -p "$place/sweeps/x"; touch "$place/sweeps/x/journal.jsonl"
if [ "$3" = resume ]; then exit 0; fi
trap 'echo "driver: SIGTERM" >> "$NOTES"; sleep 0.2; exit 130' TERM
echo "driver: ready" >> "$NOTES"
while :; do sleep 0.05; done
""",
}


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The variables of a SLURM job on three nodes, whose programs are stand-ins."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, body in STANDINS.items():
        note = f'printf "%s\\n" "{name} $*" >> "$NOTES"'
        (programs / name).write_text(f"#!/usr/bin/env bash\n{note}\n{body}\n")
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "NOTES": str(tmp_path / "notes"),
        "VENV": str(tmp_path / "venv"),
        "FOLDER": str(tmp_path / "lr[0.1]"),
        "MLFLOW_TRACKING_URI": "http://host:5000",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NAME": "fashion-1",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_CPUS_PER_TASK": "4",
        "REQUEUE": "1",
    }


def test_the_slurm_job_stops_its_driver_at_the_time_limit_and_goes_on_when_it_is_queued_again(
    job: dict[str, str],
) -> None:
    notes, line = Path(job["NOTES"]), [DEPLOY / "slurm.sh", "+sweep=fashion", "budget.trials=9"]
    process = subprocess.Popen(line, env=job, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while "driver: ready" not in (notes.read_text() if notes.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)  # as --signal=B:TERM@300 has SLURM do: to this process alone
    told, _ = process.communicate(timeout=200)
    assert process.returncode == 130, told
    noted = notes.read_text().splitlines()
    assert noted.count("driver: SIGTERM") == 1
    assert sum(" ended" in note for note in noted) == 2, "Ray's head and its workers are stopped"
    assert noted.index("driver: SIGTERM") < min(i for i, note in enumerate(noted) if " ended" in note)
    assert "scontrol requeue 12345" in noted

    started = [note.split()[1:] for note in noted if note.startswith("ray start")]
    (first,) = [note.split()[3:] for note in noted if note.startswith("python -m cnnsweep")]
    assert first[:4] == ["executor=ray", "tracking=server", "+sweep=fashion", "budget.trials=9"]
    head, workers = sorted(started, key=lambda arguments: "--head" not in arguments)
    check_ray(head, workers, next(a for a in first if a.startswith("executor.address=")).partition("=")[2])
    if (shipped() / "executor" / "ray.yaml").exists():
        assert compose(first).executor.grace_seconds == 240

    done = subprocess.run(line, env=job, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (second,) = [note.split()[3:] for note in notes.read_text().splitlines() if note.startswith("python -m")][1:]
    assert second[:3] == ["resume", "--trust", "budget.trials=9"]
    assert {a.partition("=")[0] for a in second[3:]} == {
        "executor.address",
        "executor.grace_seconds",
        "tracking.dir",
        "tracking.uri",
    }


def check_ray(head: list[str], workers: list[str], driver: str) -> None:
    """Whether Ray's command line takes these arguments, and all name one address."""
    scripts = pytest.importorskip("ray.scripts.scripts")
    started = scripts.start.make_context("start", head[1:]).params
    joined = scripts.start.make_context("start", workers[1:]).params
    assert f"{started['node_ip_address']}:{started['port']}" == joined["address"] == driver
    assert started["head"]
    assert started["block"]
    assert joined["block"]


def test_the_slurm_job_s_own_settings_are_slurm_s() -> None:
    """As sbatch reads them: before the first command, and the time for a clean end is longer than the grace."""
    head = (DEPLOY / "slurm.sh").read_text().partition("\nset -euo")[0]
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", head, re.MULTILINE))
    assert {"nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "time", "signal"} <= set(options)
    assert options["open-mode"] == "append", "a job that is queued again has its first log still"
    seconds = re.fullmatch(r"B:TERM@(\d+)", options["signal"])
    grace = re.search(r"GRACE:-(\d+)", (DEPLOY / "slurm.sh").read_text())
    assert seconds
    assert grace
    assert int(seconds[1]) > int(grace[1])
