"""Files for GitHub, GitLab, Docker and Kubernetes: they run what the repository has."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ostinato import params
from ostinato.training.cluster import this_cluster

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FIELDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}  # of GitHub's issue forms


def read(path: Path | str) -> Any:
    return YAML(typ="safe").load(ROOT / path)


WORKFLOW, GITLAB = read(".github/workflows/check.yml"), read(".gitlab-ci.yml")
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def test_the_workflow_runs_the_check_of_the_repository() -> None:
    commands = [step["run"] for step in JOBS["check"]["steps"] if "run" in step]
    assert commands == GITLAB["check"]["script"] == ["bash .ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    for path in (
        JOBS["check"]["steps"][1]["with"]["cache-dependency-path"],
        *GITLAB["check"]["cache"]["key"]["files"],
    ):
        assert f"pip install --quiet -r {path}" in (ROOT / ".ci/run").read_text()


def test_the_workflow_has_the_least_rights_and_no_secret() -> None:
    text = (ROOT / ".github/workflows/check.yml").read_text()
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOBS["check"]  # the job that runs the code of a pull request
    assert set(JOBS["report"]["permissions"].values()) == {"read", "write"}
    assert set(WORKFLOW["on"] if "on" in WORKFLOW else WORKFLOW[True]) == {"push", "pull_request"}
    assert "secrets." not in text
    # A value of a pull request reaches a command as a variable only, never as part of its text.
    assert not any("${{" in step.get("run", "") for step in STEPS)
    for step in STEPS:
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"] == {"persist-credentials": False}
    comment = JOBS["report"]["steps"][-1]
    assert "head.repo.full_name == github.repository" in comment["if"]


@pytest.mark.parametrize(
    "script", [JOBS["report"]["steps"][1]["run"], GITLAB["report"]["script"][0]]
)
def test_the_comment_has_the_tables_of_the_report(tmp_path: Path, script: str) -> None:
    text = (ROOT / "report.md").read_text()
    (tmp_path / "report.md").write_text(text)
    variables = {"PATH": os.environ["PATH"], "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=variables, check=True)
    tables = (tmp_path / "tables.md").read_text().splitlines()
    wanted = [line for line in text.splitlines() if line.startswith(("## ", "|"))]
    assert tables == ["### Results of this branch (report.md)", *wanted]
    assert sum(line.startswith("| **") for line in tables) >= 4  # the best run of each data set


@pytest.mark.parametrize("file", [form for form in FORMS if form.name != "config.yml"])
def test_an_issue_form_is_complete(file: Path) -> None:
    form = read(file)
    assert {"name", "description", "body"} <= form.keys()
    named = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in form["body"]} <= FIELDS
    assert len({field["id"] for field in named}) == len(named)
    assert all(field["attributes"]["label"] for field in named)


def test_the_citation_is_that_of_the_package() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_a_file_for_a_platform_names_no_person() -> None:
    named = [ROOT / name for name in ("SECURITY.md", "CITATION.cff", ".gitlab-ci.yml")]
    files = [*named, *(ROOT / ".github").rglob("*.*")]
    for file in files:
        found = re.findall(r"\w+@\w+\.\w+", file.read_text())
        assert set(found) <= {"body@tables.md"}, file  # curl reads that file


# Containers


def scripts() -> dict[str, list[str]]:
    """The commands that begin a worker's container, with a last one that prints the folder."""
    (container,) = manifest_of("StatefulSet")["spec"]["template"]["spec"]["containers"]
    pod = container["args"][0].replace("exec prefect worker start --pool gpu", "exec ls -a")
    start = read("compose.yaml")["services"]["worker-cpu"]["entrypoint"]
    compose = [*start[:-2], start[-2].replace("$$", "$"), start[-1], "ls", "-a"]
    return {"compose": compose, "kubernetes": [*container["command"], pod]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_a_worker_begins_in_a_clone_with_the_store_as_remote(tmp_path: Path, name: str) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    clone.mkdir()
    (origin / ".dvc").mkdir(parents=True)
    (origin / ".dvc" / "config").write_text((ROOT / ".dvc/config").read_text())
    (origin / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *words], check=True)
    environment = {**os.environ, "OSTINATO_GIT": str(origin)}
    for _ in range(2):  # the first start, and a restart
        done = subprocess.run(
            scripts()[name], cwd=clone, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert {".git", ".dvc"} <= set(done.stdout.split())
    config = (clone / ".dvc" / "config.local").read_text()
    assert "url = s3://" in config
    assert ("endpointurl = http://store:9000" in config) == (name == "compose")


# Kubernetes


def manifests() -> list[Any]:
    page = (ROOT / "docs/kubernetes.md").read_text()
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    return [manifest for block in blocks for manifest in YAML(typ="safe").load_all(block)]


def manifest_of(kind: str) -> Any:
    (found,) = (manifest for manifest in manifests() if manifest["kind"] == kind)
    return found


def test_the_manifest_fits_itself_and_the_image() -> None:
    manifest = manifest_of("StatefulSet")
    spec, template = manifest["spec"], manifest["spec"]["template"]
    assert manifest["apiVersion"] == "apps/v1"
    assert spec["selector"]["matchLabels"] == template["metadata"]["labels"]
    (container,) = template["spec"]["containers"]
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == volumes
    assert Path(container["workingDir"]).is_relative_to(mounts["clone"])
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f" AS {container['image'].rpartition(':')[2]}\n" in dockerfile
    assert f"--uid {template['spec']['securityContext']['runAsUser']} " in dockerfile


def test_the_pod_runs_the_commands_of_compose() -> None:
    manifest = manifest_of("StatefulSet")
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    worker = read("compose.yaml")["services"]["worker-gpu"]["command"]
    assert f"exec {worker}\n" in script
    variables = {item["name"] for item in container["env"]}
    assert set(re.findall(r"\$([A-Z_]+)", script)) <= variables


def jobs() -> dict[str, tuple[Any, str]]:
    """The Job and that of the JobSet, each with the name of its first pod as others see it."""
    job, group = manifest_of("Job"), manifest_of("JobSet")
    (replicated,) = group["spec"]["replicatedJobs"]
    name, subdomain = group["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    return {
        "Job": (job["spec"], f"{job['metadata']['name']}-0.{subdomain}"),
        "JobSet": (replicated["template"]["spec"], f"{name}-{replicated['name']}-0-0.{name}"),
    }


@pytest.mark.parametrize("kind", ["Job", "JobSet"])
def test_each_pod_of_a_job_is_a_rank_of_one_training(kind: str, tmp_path: Path) -> None:
    spec, first = jobs()[kind]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    (container,) = spec["template"]["spec"]["containers"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert variables["RANKS"] == str(spec["completions"])
    study = params.load(ROOT / "params.yaml")
    assert study["runs"][variables["RUN"]]["data"] == variables["DATA"]
    script = container["args"][0].replace("/shared", str(tmp_path / "shared"))
    # What a test does not have becomes a function that writes what it was called with.
    stubs = """
git() { mkdir -p clone; }
dvc() { echo dvc "$@"; }
python() { echo "$@"; echo "$TF_CONFIG" >> ../config; mkdir -p "results/$RUN"; }
"""
    for index in range(2):
        folder = tmp_path / f"pod{index}" / "work"
        folder.mkdir(parents=True)
        environment = {
            "PATH": os.environ["PATH"],
            "JOB_COMPLETION_INDEX": str(index),
            **{name: variables[name] for name in ("RANKS", "RUN", "DATA", "OSTINATO_GIT")},
        }
        done = subprocess.run(
            [*container["command"], stubs + script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"-m stages.train params.yaml {variables['RUN']}" in done.stdout
        cluster = this_cluster({"TF_CONFIG": (folder / "config").read_text()})
        assert (cluster.rank, cluster.ranks) == (index, 2)
        assert cluster.addresses[0] == f"{first}:2222"
        assert cluster.addresses[1] == f"{first.replace('-0.', '-1.')}:2222"
    assert (tmp_path / "shared" / variables["RUN"]).is_dir(), "rank 0 copies its result"


def test_the_pods_of_both_jobs_are_alike_and_only_they_reach_each_other() -> None:
    (job, _), (group, _) = jobs().values()
    pods = []
    for spec in (job, group):
        pod = {**spec["template"]["spec"]}
        pod.pop("subdomain", None)  # a JobSet sets its own
        (container,) = pod["containers"]
        script = re.sub(r'"ostinato-ranks-.*?:2222"', "ADDRESS", container["args"][0])
        pods.append({**pod, "containers": [{**container, "args": [script]}]})
    assert pods[0] == pods[1]
    labels = job["template"]["metadata"]["labels"]
    assert group["template"]["metadata"]["labels"] == labels
    assert manifest_of("Service")["spec"]["selector"] == labels
    policy = manifest_of("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]


# Slurm


def test_the_batch_script_trains_on_all_tasks_of_a_step(tmp_path: Path) -> None:
    page = (ROOT / "docs/clusters.md").read_text()
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script, re.MULTILINE))
    assert {"nodes", "ntasks-per-node", "requeue"} <= options.keys()
    stubs = """
dvc() { echo dvc "$@"; }
srun() { echo srun "$OSTINATO_RANKS" "$@"; }
"""
    done = subprocess.run(
        ["bash", "-c", stubs + script, "ranks.sh", "sketches", "sketches-conv-bilstm"],
        env={"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "dvc pull prepare@sketches",
        "srun slurm --distribution=block --kill-on-bad-exit=1 python -m stages.train params.yaml "
        "sketches-conv-bilstm",
        "dvc commit --force train@sketches-conv-bilstm",
    ], done.stderr
