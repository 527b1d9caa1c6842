"""The chart renders, for every set of values worth having, to manifests that Kubernetes and we accept."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ztproxy.cli.materials import complete, write
from ztproxy.config.load import load_all
from ztproxy.config.yaml import parse

CHART = Path(__file__).parents[2] / "charts/ztproxy"
Tool = Callable[[str], str]

MINIMAL: dict[str, Any] = {}
EVERYTHING: dict[str, Any] = {
    "image": {"digest": "sha256:" + "ab" * 32},
    "imagePullSecrets": [{"name": "registry"}],
    "policies": {"main.cedar": '@id("x")\nforbid (principal, action, resource);\n'},
    "authorities": {"configMapName": "corp-cas"},
    "state": {"existingClaim": "old", "storageClassName": "fast"},
    "service": {"annotations": {"a": "b"}, "loadBalancerSourceRanges": ["192.0.2.0/24"]},
    "serviceAccount": {"annotations": {"a": "b"}},
    "networkPolicy": {
        "clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "x"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "edge", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "extraEnv": [{"name": "OIDC", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
}
NOTHING: dict[str, Any] = {
    "serviceAccount": {"create": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "service": {"type": "ClusterIP"},
    "secrets": {"secretName": ""},
}
SETS = pytest.mark.parametrize(
    "values", [MINIMAL, EVERYTHING, NOTHING], ids=["minimal", "everything", "nothing"]
)


@pytest.fixture
def render(tool: Tool, tmp_path: Path) -> Callable[..., str]:
    """Return rendered manifests as text."""
    helm = tool("helm")

    def run(values: dict[str, Any], *, fails: bool = False) -> str:
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        command = [helm, "template", "corp", str(CHART), "--namespace", "edge", "--values", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode != 0) is fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def manifests(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


def pod(text: str) -> dict[str, Any]:
    spec: dict[str, Any] = manifests(text)["Deployment", "corp-ztproxy"]["spec"]["template"]["spec"]
    return spec


def test_helm_has_no_complaint(tool: Tool) -> None:
    done = subprocess.run([tool("helm"), "lint", "--strict", str(CHART)], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


@SETS
def test_kubernetes_accepts_what_is_rendered(
    values: dict[str, Any], render: Callable[..., str], tool: Tool, tmp_path: Path
) -> None:
    kept = [one for one in manifests(render(values)).values() if one["kind"] != "ServiceMonitor"]
    path = tmp_path / "rendered.yaml"
    path.write_text(yaml.safe_dump_all(kept))
    command = [tool("kubernetes-validate"), "--strict", "-k", "1.35", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@SETS
def test_the_pod_can_do_little(values: dict[str, Any], render: Callable[..., str]) -> None:
    spec = pod(render(values))
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"state", "tmp"}
    secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert secrets and all(secret["defaultMode"] == 0o440 for secret in secrets)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


def test_everything_that_is_asked_for_is_there(render: Callable[..., str]) -> None:
    text = render(EVERYTHING)
    kinds = {kind for kind, _ in manifests(text)}
    assert {"ServiceMonitor", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"} <= kinds
    assert "PersistentVolumeClaim" not in kinds
    assert pod(text)["containers"][0]["image"].endswith("@sha256:" + "ab" * 32)
    policies = manifests(text)["ConfigMap", "corp-ztproxy-policies"]["data"]
    assert policies["main.cedar"] == EVERYTHING["policies"]["main.cedar"]


def test_what_is_not_asked_for_is_not(render: Callable[..., str]) -> None:
    kinds = {kind for kind, _ in manifests(render(NOTHING))}
    assert kinds == {"ConfigMap", "Deployment", "Service", "PersistentVolumeClaim"}


def test_metrics_are_not_on_the_service_that_is_exposed(render: Callable[..., str]) -> None:
    found = manifests(render(MINIMAL))
    exposed = found["Service", "corp-ztproxy"]["spec"]
    assert [port["name"] for port in exposed["ports"]] == ["https"] and exposed["type"] == "LoadBalancer"
    assert found["Service", "corp-ztproxy-metrics"]["spec"]["type"] == "ClusterIP"


def test_a_changed_policy_restarts_the_pod(render: Callable[..., str]) -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = manifests(render(values))["Deployment", "corp-ztproxy"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum({"policies": {"a.cedar": "// a"}}) != checksum({"policies": {"a.cedar": "// b"}})


def test_ports_follow_the_configuration(render: Callable[..., str]) -> None:
    config = {"listen": "0.0.0.0:9443", "telemetry": {"listen": "[::]:9999"}}
    ports = pod(render({"config": config}))["containers"][0]["ports"]
    assert [port["containerPort"] for port in ports] == [9443, 9999]


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 3},
        {"config": {"telemetry": {"listen": "127.0.0.1:9464"}}},
        {"config": {"state": "/tmp/x"}},
        {"tls": {"secretName": ""}},
        {"image": {"digest": "latest"}},
        {"state": {"accessModes": ["ReadWriteMany"]}},
    ],
    ids=str,
)
def test_values_that_can_not_work_are_refused(values: dict[str, Any], render: Callable[..., str]) -> None:
    assert "values don't meet the specifications" in render(values, fails=True)


def test_the_rendered_configuration_is_sound(render: Callable[..., str], tmp_path: Path) -> None:
    found = manifests(render({"policies": {"main.cedar": "// none yet\n"}}))
    config = write(tmp_path / "ztproxy.yaml", found["ConfigMap", "corp-ztproxy"]["data"]["ztproxy.yaml"])
    for name, text in found["ConfigMap", "corp-ztproxy-policies"]["data"].items():
        write(tmp_path / "policies" / name, text)
    tree, problems = parse(config.read_bytes(), str(config))
    assert tree is not None and not problems
    assert len(list(complete(tmp_path, tree))) == 5
    settings, _ = load_all(config, {})
    assert settings.portal_origin == "https://portal.corp.example"
