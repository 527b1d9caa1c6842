"""How the connector is installed: a unit that can do little, and a chart that renders to what we accept."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ztproxy.connector import configuration

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging/ztproxy-connector.service"
CHART = ROOT / "charts/ztproxy-connector"
Tool = Callable[[str], str]

LEAST: dict[str, Any] = {
    "portal": "https://portal.corp.example",
    "config": {"allow": ["http://crm.apps.svc.cluster.local:8080"]},
}
EVERYTHING: dict[str, Any] = {
    **LEAST,
    "image": {"digest": "sha256:" + "ab" * 32},
    "imagePullSecrets": [{"name": "registry"}],
    "enrolment": {"secretName": "connector-code"},
    "authorities": {"configMapName": "corp-cas"},
    "state": {"existingClaim": "old"},
    "networkPolicy": {"egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    "podLabels": {"team": "x"},
    "tolerations": [{"key": "edge", "operator": "Exists"}],
}


# ---------------------------------------------------------------------- systemd


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that is installed everywhere."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/usr/bin/ztproxy", "/bin/true"))
    return path


def test_systemd_takes_the_unit(unit: Path, tool: Tool) -> None:
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_can_do_little(unit: Path, tool: Tool) -> None:
    """Below 2.0 of 10 is what systemd calls OK for a service that speaks to the network."""
    command = [tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-400:]


def test_the_unit_is_as_the_program_expects() -> None:
    text = UNIT.read_text()
    assert f"StateDirectory={configuration.DEFAULT_STATE.name}\n" in text
    assert str(configuration.DEFAULT_STATE.parent) == "/var/lib"
    assert "RestartPreventExitStatus=3\n" in text
    assert "ztproxy connector run --config /etc/ztproxy/connector.yaml\n" in text
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text


# ---------------------------------------------------------------------- Kubernetes


@pytest.fixture
def render(tool: Tool, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return rendered manifests."""
    helm = tool("helm")

    def run(values: dict[str, Any], *, fails: bool = False) -> list[dict[str, Any]]:
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        command = [helm, "template", "site", str(CHART), "--namespace", "apps", "--values", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode != 0) is fails, done.stderr
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return run


def of_kind(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (one,) = (one for one in found if one["kind"] == kind)
    return one


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_kubernetes_accepts_what_is_rendered(
    values: dict[str, Any], render: Callable[..., list[dict[str, Any]]], tool: Tool, tmp_path: Path
) -> None:
    path = tmp_path / "rendered.yaml"
    path.write_text(yaml.safe_dump_all(render(values)))
    command = [tool("kubernetes-validate"), "--strict", "-k", "1.35", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lint = subprocess.run(
        [tool("helm"), "lint", "--strict", str(CHART), "--values", str(tmp_path / "values.yaml")],
        capture_output=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_the_pod_can_do_little_and_nobody_reaches_it(
    values: dict[str, Any], render: Callable[..., list[dict[str, Any]]]
) -> None:
    found = render(values)
    spec = of_kind(found, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"state", "tmp"}
    assert "ports" not in container
    assert not [one for one in found if one["kind"] == "Service"]
    policy = of_kind(found, "NetworkPolicy")["spec"]
    assert (policy["ingress"], "Ingress" in policy["policyTypes"]) == ([], True)


def test_the_rendered_file_is_sound(render: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    text = of_kind(render(EVERYTHING), "ConfigMap")["data"]["connector.yaml"]
    path = tmp_path / "connector.yaml"
    path.write_text(text)
    read = configuration.load(path)
    assert read.allow == ("http://crm.apps.svc.cluster.local:8080",)
    mounts = of_kind(render(EVERYTHING), "Deployment")["spec"]["template"]["spec"]["containers"][0][
        "volumeMounts"
    ]
    assert str(read.state.parent) in {mount["mountPath"] for mount in mounts}


@pytest.mark.parametrize(
    "values",
    [
        {"config": LEAST["config"]},
        {"portal": "http://portal.corp.example", "config": LEAST["config"]},
        {"portal": LEAST["portal"]},
        {"portal": LEAST["portal"], "config": {"allow": ["crm"]}},
        {**LEAST, "replicas": 2},
    ],
    ids=str,
)
def test_values_that_can_not_work_are_refused(
    values: dict[str, Any], render: Callable[..., list[dict[str, Any]]]
) -> None:
    render(values, fails=True)


def test_the_image_has_a_place_for_its_key() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert (
        f"--owner ztproxy --group ztproxy --mode 0700 /var/lib/ztproxy {configuration.DEFAULT_STATE}" in text
    )
