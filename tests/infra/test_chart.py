"""The Helm chart, rendered by Helm itself and held against Kubernetes' own schemas."""

from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from headwater.infra.settings import Settings

CHART = Path(__file__).parents[2] / "infra" / "chart"
NEEDED: dict[str, Any] = {
    "secret": "headwater",
    "s3": {"storage": "s3://bucket/prefix"},
    "pipelines": {"serve": ["/pipelines/shop.py:clicks"]},
}
ALL: dict[str, Any] = {
    "secret": "headwater",
    "image": {"repository": "registry.example/headwater", "tag": "1.2.3"},
    "imagePullSecrets": [{"name": "pull"}],
    "s3": {"storage": "s3://bucket/prefix/", "endpoint": "http://s3.example:7070", "region": "eu-1"},
    "otel": {"enabled": True, "endpoint": "http://collector.example:4318"},
    "pipelines": {"serve": ["/pipelines/a.py:a", "shop.b:b"], "configMap": "pipelines"},
    "service": {
        "rate": 50,
        "annotations": {"a": "b"},
        "home": {"size": "1Gi", "storageClassName": "fast"},
        "podDisruptionBudget": True,
    },
    "prefect": {
        "uiApiUrl": "https://prefect-api.example/api",
        "allowedOrigins": ["https://prefect.example"],
        "storage": {"storageClassName": "fast"},
    },
    "mlflow": {"replicas": 2, "allowedHosts": ["mlflow.example"]},
    "serviceAccount": {"annotations": {"role": "writer"}},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"c": "d"},
}


def rendered(values: dict[str, Any], name: str = "prod") -> dict[tuple[str, str], dict[str, Any]]:
    """Render the chart, and give its objects by kind and name."""
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name=name, namespace="ml")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    made = [each for text in texts for each in yaml.safe_load_all(text) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in made}


def pods(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pods' specifications, by the name of what makes them."""
    makers = {key: made for key, made in objects.items() if key[0] in ("StatefulSet", "Deployment")}
    return {name: made["spec"]["template"]["spec"] for (_, name), made in makers.items()}


def containers(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = [each for pod in pods(rendered(values)).values() for each in pod["containers"]]
    return {each["name"]: each for each in found}


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_helm_finds_no_fault() -> None:
    found = helm.lint(str(CHART), NEEDED)
    assert found["errors"] == []
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("values", [NEEDED, ALL], ids=["needed", "all"])
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_every_object(values: dict[str, Any], version: str) -> None:
    objects = rendered(values)
    assert len(objects) >= 9
    for each in objects.values():
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"secret": ""}, "/secret"),
        ({"s3": {"storage": "/tmp"}}, "/s3/storage"),
        ({"pipelines": {"serve": []}}, "/pipelines/serve"),
        ({"pipelines": {"serve": ["shop.py"]}}, "/pipelines/serve/0"),
        ({"service": {"replicas": 2}}, "replicas"),
        ({"prefect": {"allowedOrigins": ["*"]}}, "/prefect/allowedOrigins/0"),
        ({"service": {"workers": 0}}, "/service/workers"),
        ({"typo": 1}, "typo"),
    ],
)
def test_values_that_do_not_fit_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(helm.HelmError, match=named):
        rendered({**NEEDED, **wrong})


def test_the_chart_renders_nothing_without_secrets() -> None:
    with pytest.raises(helm.HelmError, match="/secret"):
        rendered({})


def test_one_pod_owns_a_home() -> None:
    objects = rendered(ALL)
    service = objects["StatefulSet", "prod-headwater"]
    assert service["spec"]["replicas"] == 1
    (claim,) = service["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    pod = service["spec"]["template"]["spec"]
    # Leases tell by host name and process whether their holder lives.
    assert pod["shareProcessNamespace"] is True
    homes = [
        mount["mountPath"]
        for each in pod["containers"]
        for mount in each["volumeMounts"]
        if mount["name"] == "home"
    ]
    assert homes == ["/var/lib/headwater"] * 2
    assert objects["StatefulSet", "prod-headwater-prefect"]["spec"]["replicas"] == 1


@pytest.mark.parametrize("values", [NEEDED, ALL], ids=["needed", "all"])
def test_nobody_is_root_and_no_disk_is_written_but_volumes(values: dict[str, Any]) -> None:
    found = pods(rendered(values))
    assert len(found) == 3
    for pod in found.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for each in pod["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"]["limits"]["memory"]
            assert each["livenessProbe"]


def test_probes_ask_the_service_as_it_answers() -> None:
    service = containers(NEEDED)["service"]
    assert service["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert service["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"


@pytest.mark.parametrize("name", ["service", "worker"])
def test_headwater_gets_the_variables_that_it_reads(name: str) -> None:
    told = variables(containers(ALL)[name])
    ours = {key.removeprefix("HEADWATER_").lower() for key in told if key.startswith("HEADWATER_")}
    # A key is always needed, and one user owns the home.
    assert ours == set(Settings.model_fields) - {"artifacts", "now", "hosts", "group", "api_key"}
    plain = {key: value for key, value in told.items() if isinstance(value, str)}
    assert plain["HEADWATER_MLFLOW_URI"] == "http://prod-headwater-mlflow:5000"
    assert plain["PREFECT_API_URL"] == "http://prod-headwater-prefect:4200/api"
    assert plain["HEADWATER_OTEL"] == "true"


def test_secrets_come_by_reference_alone() -> None:
    referred = {
        "HEADWATER_DATABASE_URL",
        "HEADWATER_SIGNING_KEY",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        "MLFLOW_BACKEND_STORE_URI",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }
    found: set[str] = set()
    for each in containers(ALL).values():
        told = variables(each)
        by_reference = {key for key, value in told.items() if isinstance(value, dict)}
        assert by_reference == referred & set(told)
        found |= by_reference
    assert found == referred
    assert not [key for key in rendered(ALL) if key[0] == "Secret"]


def test_prefect_and_mlflow_answer_to_their_own_pages_alone() -> None:
    for values, page, host in ((NEEDED, [], []), (ALL, ["https://prefect.example"], ["mlflow.example"])):
        found = containers(values)
        origins = variables(found["prefect"])["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
        assert origins == ["http://127.0.0.1:4200", "http://localhost:4200", *page]
        hosts = variables(found["mlflow"])["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
        assert hosts == ["prod-headwater-mlflow:5000", "localhost:*", "127.0.0.1:*", *host]


def test_only_the_release_reaches_prefect_and_mlflow() -> None:
    policy = rendered(NEEDED)["NetworkPolicy", "prod-headwater"]["spec"]
    (expression,) = policy["podSelector"]["matchExpressions"]
    assert expression["values"] == ["prefect", "mlflow"]
    assert policy["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": policy["podSelector"]["matchLabels"]}}]}
    ]


@pytest.mark.parametrize("release", ["headwater", "a" * 53])
def test_names_stay_within_what_kubernetes_takes(release: str) -> None:
    for kind, name in rendered(ALL, release):
        assert len(name) <= 63, (kind, name)
