"""What stands around the package: make, locks, image, deployments, README."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.config.load import load
from gateway.identity.keys import new_key_pem

ROOT = Path(__file__).parent.parent
LOCKS = sorted(ROOT.glob("requirements*.lock"))
TARGETS = {
    *("help", "run", "test", "check", "bench", "profile", "e2e", "fuzz", "soak"),
    *("cov", "image", "lock"),
}
USER = 65532


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def as_user(tmp_path: Path, config: str) -> str:
    """Let *config* find the secrets that its deployment would mount."""
    secrets = tmp_path / "secrets"
    (secrets / "identity").mkdir(parents=True)
    (secrets / "store").mkdir()
    private = new_key_pem("ES256")
    public = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for name, content in (
        ("identity/1.pem", private),
        ("store/url", b"redis://:word@127.0.0.1:6379/0"),
        ("issuer.pem", public),
    ):
        (secrets / name).write_bytes(content)
        (secrets / name).chmod(0o440)  # as the kubelet does, with fsGroup
    return config.replace("/run/secrets/gateway", str(secrets))


# Make


def test_help_lists_every_target() -> None:
    """`make help` says what one can do, a line each."""
    said = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in said.splitlines()} == TARGETS


@pytest.mark.parametrize("target", sorted(TARGETS - {"help"}))
def test_a_target_can_be_planned(target: str) -> None:
    """No target names a file or a target that does not exist."""
    subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True
    )


def test_a_target_is_a_list_of_commands_not_a_program() -> None:
    """What needs a condition or a loop is a Python program."""
    recipes = [line for line in text("Makefile").splitlines() if line[:1] == "\t"]
    assert not [
        line
        for line in recipes
        if re.search(r"[;|`]|&&|\$\$|\bif\b", line) and "-c " not in line
    ]


def test_what_every_change_passes_can_be_started() -> None:
    """`.ci/run` is executable, and bash reads it."""
    assert os.access(ROOT / ".ci/run", os.X_OK)
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)


# Locks


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_hashes_and_no_registry(lock: Path) -> None:
    """Whoever installs chooses the registry; the hashes say what it must hand out."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "://" in line]
    assert not [
        line for line in lines if re.match(r"\s*--(extra-)?index|\s*--find", line)
    ]
    pinned = [number for number, line in enumerate(lines) if re.match(r"[a-z]", line)]
    assert pinned
    for number in pinned:
        assert re.match(r"[a-z0-9.-]+(\[.+\])?==\S+ ", lines[number])
        assert "--hash=sha256:" in lines[number + 1]


def test_the_locks_agree() -> None:
    """What is tested, measured and built is what is shipped."""
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in re.findall(
            r"^([a-z0-9.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE
        ):
            versions.setdefault(name, set()).add(version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}


def test_every_dependency_is_locked() -> None:
    """A dependency added without `make lock` is noticed here."""
    project = tomllib.loads(text("pyproject.toml"))
    extras = project["project"]["optional-dependencies"]
    for lock, wanted in (
        ("requirements.lock", project["project"]["dependencies"]),
        ("requirements-dev.lock", extras["dev"]),
        ("requirements-bench.lock", extras["bench"]),
        ("requirements-fuzz.lock", extras["fuzz"]),
        ("requirements-build.lock", project["dependency-groups"]["build"]),
        ("requirements-pip.lock", project["dependency-groups"]["pip"]),
    ):
        locked = set(re.findall(r"^([a-z0-9.-]+)==", text(lock), re.MULTILINE))
        assert {re.split(r"[\[<>=~! ]", each)[0] for each in wanted} <= locked
    assert project["build-system"]["requires"] == project["dependency-groups"]["build"]


# The image


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile as (instruction, rest), continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text("Dockerfile"))
    lines = [line for line in joined.splitlines() if line and line[0] != "#"]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def final_stage() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, rest in instructions():
        if name == "FROM":
            found = {}
        found.setdefault(name, []).append(rest)
    return found


def test_the_image_is_slim_and_made_in_stages() -> None:
    """Nothing that only building needs is in the image: its last stage runs nothing."""
    assert [rest for name, rest in instructions() if name == "ARG"] == [
        "PYTHON_IMAGE=python:3.13-slim"
    ]
    stages = [rest for name, rest in instructions() if name == "FROM"]
    assert len(stages) > 1
    assert all(stage.startswith("${PYTHON_IMAGE}") for stage in stages)
    assert "RUN" not in final_stage()


def test_the_image_installs_by_hash_and_compiles_nothing() -> None:
    """Every package that comes from outside is a wheel whose hash is locked."""
    installs = [rest for name, rest in instructions() if " install " in rest]
    assert installs
    for install in installs:
        by_hash = "--require-hashes --only-binary=:all: -r requirements" in install
        assert by_hash or "--no-deps --no-index" in install
    assert not re.search(
        r"\b(apt-get|gcc|build-essential|curl|wget)\b", text("Dockerfile")
    )


def test_the_image_runs_as_nobody_on_a_filesystem_it_cannot_write() -> None:
    """A numeric user, for runAsNonRoot; no bytecode, for a read-only root."""
    final = final_stage()
    assert final["USER"] == [f"{USER}:{USER}"]
    assert "PYTHONDONTWRITEBYTECODE=1" in final["ENV"][0]
    assert "VOLUME" not in final


def test_the_image_is_told_and_asked_without_a_shell() -> None:
    """Signals reach the gateway itself; the health check needs no shell either."""
    final = final_stage()
    assert final["STOPSIGNAL"] == ["SIGTERM"]
    assert json.loads(final["ENTRYPOINT"][0]) == ["gateway"]
    assert json.loads(final["CMD"][0]) == ["serve"]
    options, _, command = final["HEALTHCHECK"][0].partition("CMD ")
    assert json.loads(command) == ["gateway", "health"]
    assert "--start-period=" in options


def test_the_image_gets_only_what_it_is_made_of() -> None:
    """Keys, tests and history stay out of the build context."""
    lines = text(".dockerignore").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in kept)


# Kubernetes


def sidecar(kind: str) -> Any:
    found = yaml.safe_load_all(text("deploy/kubernetes/sidecar.yaml"))
    (document,) = [each for each in found if each["kind"] == kind]
    return document


def pod() -> Any:
    return sidecar("Deployment")["spec"]["template"]["spec"]


def test_the_gateway_is_a_native_sidecar() -> None:
    """It starts before the backend and stops after it."""
    (gateway,) = pod()["initContainers"]
    assert gateway["restartPolicy"] == "Always"
    assert pod()["terminationGracePeriodSeconds"] == 30


def test_the_probes_are_those_of_the_probes_port() -> None:
    """Kubernetes asks the port that clients do not reach."""
    (gateway,) = pod()["initContainers"]
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    asked = {
        probe: gateway[probe]["httpGet"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert asked == {
        "startupProbe": {"path": "/startupz", "port": "probes"},
        "readinessProbe": {"path": "/readyz", "port": "probes"},
        "livenessProbe": {"path": "/livez", "port": "probes"},
    }
    listen = tomllib.loads(sidecar("ConfigMap")["data"]["gateway.toml"])
    assert listen["probes"]["listen"] == f"0.0.0.0:{ports['probes']}"
    assert listen["server"]["listen"] == [f"0.0.0.0:{ports['http']}"]
    (published,) = sidecar("Service")["spec"]["ports"]
    assert published["targetPort"] == "http"


def test_the_pod_may_do_nothing_that_it_need_not() -> None:
    """No root, no capability, no writable root, the runtime's seccomp profile."""
    context = pod()["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] == context["fsGroup"] == USER
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod()["automountServiceAccountToken"] is False
    for container in pod()["initContainers"] + pod()["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_secrets_are_files_that_the_backend_does_not_see() -> None:
    """Neither an environment variable nor the backend's mounts hold one."""
    (gateway,) = pod()["initContainers"]
    (backend,) = pod()["containers"]
    assert "env" not in gateway
    assert "volumeMounts" not in backend
    assert "ports" not in backend
    volumes = {volume["name"] for volume in pod()["volumes"]}
    mounted = {mount["name"] for mount in gateway["volumeMounts"]}
    assert volumes == mounted
    modes = [v["secret"]["defaultMode"] for v in pod()["volumes"] if "secret" in v]
    assert modes == [0o440, 0o440]


def test_only_the_data_port_is_open_to_everybody() -> None:
    """The policy fences what listens; the backend does not even listen."""
    spec = sidecar("NetworkPolicy")["spec"]
    assert spec["podSelector"]["matchLabels"] == {"app": "orders"}
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    anybody = [rule["ports"] for rule in spec["ingress"] if "from" not in rule]
    assert anybody == [[{"port": 8080, "protocol": "TCP"}]]


def test_the_sidecars_configuration_loads(tmp_path: Path) -> None:
    """What stands in the ConfigMap is what `gateway serve` accepts."""
    data = sidecar("ConfigMap")["data"]
    for name, content in data.items():
        config = as_user(tmp_path, content) if name == "gateway.toml" else content
        (tmp_path / name).write_text(config, encoding="utf-8")
    loaded = load([tmp_path / "gateway.toml"], env={})
    weak = {
        w.what for w in loaded.settings.weakenings if not w.what.startswith("public")
    }
    assert weak == set(loaded.settings.accepted)
    (url,) = loaded.settings.upstreams["orders"].urls
    assert (url.address.host, url.address.port) == ("127.0.0.1", 8000)
    assert loaded.settings.admin is not None
    socket = loaded.settings.admin.listen.path
    (run,) = [
        v for v in pod()["initContainers"][0]["volumeMounts"] if v["name"] == "run"
    ]
    assert Path(socket).parent == Path(run["mountPath"])


# Compose


def compose() -> Any:
    return yaml.safe_load(text("deploy/compose/compose.yaml"))["services"]


def test_the_backend_can_be_reached_through_the_gateway_alone() -> None:
    """It shares the gateway's loopback and publishes nothing."""
    services = compose()
    assert set(services) == {"gateway", "redis", "backend"}
    assert services["backend"]["network_mode"] == "service:gateway"
    assert not {"ports", "networks"} & services["backend"].keys()
    assert "ports" not in services["redis"]
    assert services["gateway"]["ports"] == ["127.0.0.1:8080:8080"]
    assert services["gateway"]["read_only"] is True


def test_what_compose_mounts_is_there() -> None:
    """Every file it names is in the repository, but for the secrets one makes."""
    for service in compose().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(".") and "secrets" not in source:
                assert (ROOT / "deploy/compose" / source).exists()


def test_composes_configuration_loads(tmp_path: Path) -> None:
    """The gateway.toml beside compose.yaml is one that `gateway serve` accepts."""
    shutil.copytree(ROOT / "deploy/compose/policies", tmp_path / "policies")
    config = as_user(tmp_path, text("deploy/compose/gateway.toml"))
    (tmp_path / "gateway.toml").write_text(config, encoding="utf-8")
    loaded = load([tmp_path / "gateway.toml"], env={})
    assert not loaded.settings.store.is_memory
    assert {route.service for route in loaded.policy.routes} == {"orders"}


# Words


def documents() -> list[Path]:
    return [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *sorted(ROOT.glob("docs/**/*.md")),
    ]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_a_link_between_documents_leads_somewhere(path: Path) -> None:
    """Relative links name files of the repository."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    """The shortest sidecar of the README is a whole one."""
    blocks = re.findall(r"```toml\n# (\S+)\n(.*?)```", text("README.md"), re.DOTALL)
    assert {name for name, _ in blocks} == {"gateway.toml", "policies/orders.toml"}
    (tmp_path / "policies").mkdir()
    for name, content in blocks:
        config = as_user(tmp_path, content) if name == "gateway.toml" else content
        (tmp_path / name).write_text(config, encoding="utf-8")
    load([tmp_path / "gateway.toml"], env={"REDIS_URL": "redis://127.0.0.1:6379/0"})


def test_a_decision_is_short_and_has_three_parts() -> None:
    """Context, decision, consequences, on one screen."""
    records = sorted(ROOT.glob("docs/decisions/0*.md"))
    numbers = [int(path.name[:4]) for path in records]
    assert numbers == list(range(1, len(records) + 1))
    for path in records:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 40
        assert [line for line in lines if line.startswith("## ")] == [
            "## Context",
            "## Decision",
            "## Consequences",
        ]
