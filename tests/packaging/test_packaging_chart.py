"""The Helm chart renders what Kubernetes takes, and what the gateway in the pod takes.

Rendered by the real Helm, checked against the schemas of Kubernetes' own API, and the environment
is read by the gateway's own settings.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no py.typed
import pytest
import yaml

from gateway.config.loading import parse_routes
from gateway.overdue import END_SLACK_S
from gateway.settings import Settings
from tests.fakes.helm import CHART, Manifest, Values, helm, only, render
from tests.fakes.programs import ROOT

KUBERNETES_VERSIONS = ("1.25", kubernetes_validate.latest_version())

EVERYTHING: Values = {
    "fullnameOverride": "x" * 80,
    "routes": "version: 1\nroutes: []  # \"quoted\" and 'quoted', ${HOME}: \t\n",
    "image": {"tag": "1.2.3"},
    "imagePullSecrets": [{"name": "pull"}],
    "autoscaling": {"enabled": True},
    "podDisruptionBudget": {"maxUnavailable": "25%"},
    "consul": {
        "address": "https://consul.example.com:8501",
        "datacenter": "dc2",
        "tokenSecret": {"name": "consul-token", "key": "acl"},
        "caSecret": {"name": "consul-ca"},
    },
    "listenAddress": "[::]",
    "trustedProxies": ["10.0.0.0/8", "fd00::/8"],
    "accessLog": "off",
    "drain": {"delaySeconds": 15, "idleSeconds": 10, "timeoutSeconds": 60},
    "service": {
        "type": "LoadBalancer",
        "port": 443,
        "annotations": {"a": "1"},
        "externalTrafficPolicy": "Local",
    },
    "adminService": {"annotations": {"a": "1"}},
    "networkPolicy": {"enabled": True, "adminFrom": [{"podSelector": {}}]},
    "serviceAccount": {"name": "account", "annotations": {"a": "1"}},
    "extraEnv": [{"name": "GATEWAY_MAX_CONNECTIONS", "value": "500"}],
    "extraVolumes": [{"name": "extra", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    "podAnnotations": {"a": "1"},
    "podLabels": {"team": "edge"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "edge", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    ],
}
NOTHING: Values = {
    "existingConfigMap": "mine",
    "podDisruptionBudget": {"enabled": False},
    "consul": {"enabled": False},
    "adminService": {"enabled": False},
    "networkPolicy": {"enabled": True},
    "serviceAccount": {"create": False},
    "resources": {"requests": None, "limits": None},
    "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
}
VARIANTS = [
    pytest.param({}, id="defaults"),
    pytest.param(EVERYTHING, id="everything on"),
    pytest.param(NOTHING, id="everything off"),
]


def pod_of(values: Values | None = None) -> Manifest:
    """Give the pod's spec."""
    spec: Manifest = only(render(values), "Deployment")["spec"]["template"]["spec"]
    return spec


def container_of(values: Values | None = None) -> Manifest:
    """Give the pod's one container."""
    (container,) = pod_of(values)["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(values: Values | None = None) -> dict[str, str]:
    """Give the container's environment as the kubelet makes it on the Kubernetes node 10.1.2.3."""
    env: dict[str, str] = {}
    for entry in container_of(values)["env"]:
        if entry.get("valueFrom") == {"fieldRef": {"fieldPath": "status.hostIP"}}:
            env[entry["name"]] = "10.1.2.3"
        else:
            env[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda m: env[m[1]], entry["value"])
    return env


@pytest.mark.parametrize("values", VARIANTS)
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_takes_what_is_rendered(values: Values, version: str) -> None:
    manifests = render(values)

    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)
        assert manifest["metadata"]["namespace"] == "edge"


def test_the_validation_would_see_a_wrong_manifest() -> None:
    deployment = only(render(), "Deployment")
    deployment["spec"]["template"]["spec"]["container"] = []

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES_VERSIONS[-1], strict=True)


@pytest.mark.parametrize("values", VARIANTS)
def test_helm_finds_nothing_to_complain_about(values: Values) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, values=values)


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        pytest.param(
            {},
            "ConfigMap Deployment PodDisruptionBudget Service Service ServiceAccount",
            id="defaults",
        ),
        pytest.param(
            EVERYTHING,
            "ConfigMap Deployment HorizontalPodAutoscaler NetworkPolicy PodDisruptionBudget "
            "Service Service ServiceAccount",
            id="everything on",
        ),
        pytest.param(NOTHING, "Deployment NetworkPolicy Service", id="everything off"),
    ],
)
def test_each_object_is_there_when_it_is_asked_for(values: Values, kinds: str) -> None:
    assert sorted(manifest["kind"] for manifest in render(values)) == kinds.split()


def test_the_chart_and_the_project_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])
    assert container_of()["image"] == f"gateway:{project['version']}"


def test_the_gateway_takes_its_environment(
    settings_of: Callable[[Mapping[str, str]], Settings],
) -> None:
    settings = settings_of(environment_of())

    assert settings.registry == "consul"
    assert settings.consul_address == "http://10.1.2.3:8500"
    drain_s = (settings.drain_delay_s, settings.drain_idle_s, settings.drain_timeout_s)
    assert drain_s == (5.0, 5.0, 30.0)
    assert any(name.endswith("-admin") for name in settings.admin_hosts)
    assert any(name.endswith(".svc.cluster.local") for name in settings.admin_hosts)
    assert (settings.access_log, settings.log_format) == ("on", "json")


def test_the_gateway_takes_an_environment_with_everything(
    settings_of: Callable[[Mapping[str, str]], Settings],
) -> None:
    env = environment_of(EVERYTHING)
    # The file with the authority exists in the pod only.
    authority = env.pop("GATEWAY_CONSUL_CACERT")

    settings = settings_of(env)

    assert authority == "/etc/gateway-consul-ca/ca.crt"
    assert str(settings.consul_token_file) == "/etc/gateway-consul-token/token"
    assert settings.consul_address == "https://consul.example.com:8501"
    assert settings.consul_datacenter == "dc2"
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert settings.access_log == "off"
    assert settings.max_connections == 500
    assert settings.bind is not None
    assert settings.bind.port == 8080


def test_without_consul_the_servers_are_those_of_the_file(
    settings_of: Callable[[Mapping[str, str]], Settings],
) -> None:
    assert settings_of(environment_of(NOTHING)).registry == "static"


def test_no_secret_is_in_the_environment() -> None:
    names = [entry["name"] for entry in container_of(EVERYTHING)["env"]]

    assert "GATEWAY_CONSUL_TOKEN_FILE" in names
    assert "GATEWAY_CONSUL_TOKEN" not in names


@pytest.mark.parametrize("values", VARIANTS)
def test_every_mount_has_its_volume(values: Values) -> None:
    mounted = {mount["name"] for mount in container_of(values)["volumeMounts"]}

    assert mounted == {volume["name"] for volume in pod_of(values)["volumes"]}


def test_secrets_are_mounted_under_the_names_that_the_settings_give() -> None:
    volumes = {volume["name"]: volume for volume in pod_of(EVERYTHING)["volumes"]}

    token = volumes["consul-token"]["secret"]

    assert token["secretName"] == "consul-token"
    assert token["items"] == [{"key": "acl", "path": "token"}]
    assert token["defaultMode"] == 0o440


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("version: 1\nroutes: []\n", id="plain"),
        pytest.param(EVERYTHING["routes"], id="quotes, tab, variable"),
        pytest.param("version: 1\nroutes: [{id: 1000000}]", id="large number, no newline"),
        pytest.param("version: 1 # é\r\nroutes: []\r\n", id="CRLF"),
    ],
)
def test_routes_arrive_byte_for_byte(text: str) -> None:
    """Through YAML values a large number would come out as 1e+06, and comments not at all."""
    configmap = only(render({"routes": text}), "ConfigMap")

    assert configmap["data"] == {"routes.yaml": text}


def test_the_default_routes_load() -> None:
    text = only(render(), "ConfigMap")["data"]["routes.yaml"]

    assert parse_routes(text, env={}).routes == ()


def test_changed_routes_roll_the_pods() -> None:
    def checksum(values: Values) -> Any:
        template = only(render(values), "Deployment")["spec"]["template"]
        return template["metadata"]["annotations"].get("checksum/config")

    default = checksum({})

    assert checksum({"replicaCount": 3}) == default
    assert checksum({"routes": "version: 1\nroutes: []  # changed\n"}) != default
    assert checksum({"existingConfigMap": "mine"}) is None


def test_the_pod_may_do_nothing_that_it_does_not_need() -> None:
    pod, container = pod_of(), container_of()

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_what_it_writes_has_a_volume() -> None:
    """The root is read-only: without the volume, the last known instances could not be kept."""
    mounts = {mount["name"]: mount for mount in container_of()["volumeMounts"]}

    assert mounts["state"]["mountPath"] == environment_of()["GATEWAY_STATE_DIR"]
    assert "readOnly" not in mounts["state"]


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_the_grace_period_is_longer_than_the_drain(values: Values) -> None:
    env = environment_of(values)
    drain_s = sum(
        int(env[name].removesuffix("s"))
        for name in ("GATEWAY_DRAIN_DELAY", "GATEWAY_DRAIN_TIMEOUT")
    )

    assert pod_of(values)["terminationGracePeriodSeconds"] == drain_s + END_SLACK_S


def test_probes_ask_the_admin_port() -> None:
    container = container_of()

    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "admin": 9901}


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_the_admin_port_is_never_on_the_public_service(values: Values) -> None:
    manifests = render(values)
    labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    public, admin = sorted(
        (manifest for manifest in manifests if manifest["kind"] == "Service"),
        key=lambda service: str(service["metadata"]["name"]),
    )

    assert [port["targetPort"] for port in public["spec"]["ports"]] == ["http"]
    assert [port["targetPort"] for port in admin["spec"]["ports"]] == ["admin"]
    assert admin["spec"]["type"] == "ClusterIP"
    assert public["spec"]["selector"].items() <= labels
    assert admin["spec"]["selector"].items() <= labels
    assert len(admin["metadata"]["name"]) <= 63


@pytest.mark.parametrize(
    ("peers", "admin_rules"),
    [([], 0), ([{"podSelector": {}}], 1)],
    ids=["nobody", "one peer"],
)
def test_the_network_policy_opens_the_admin_port_to_its_peers_only(
    peers: list[Any], admin_rules: int
) -> None:
    values = {"networkPolicy": {"enabled": True, "adminFrom": peers}}

    public, *admin = only(render(values), "NetworkPolicy")["spec"]["ingress"]

    assert public == {"ports": [{"port": "http"}]}
    assert admin == [{"ports": [{"port": "admin"}], "from": peers}][:admin_rules]


def test_a_deployment_that_scales_itself_says_no_number_of_replicas() -> None:
    """Each upgrade would set it back to that number."""
    assert "replicas" in only(render(), "Deployment")["spec"]
    assert "replicas" not in only(render({"autoscaling": {"enabled": True}}), "Deployment")["spec"]


def test_a_release_called_gateway_does_not_repeat_the_name() -> None:
    assert only(render(release="gateway"), "Deployment")["metadata"]["name"] == "gateway"
