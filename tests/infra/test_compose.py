"""The compose file and the image, checked without starting them."""

import re
from typing import Any

import pytest
import yaml
from tests.system.composed import COMPOSE, interpolated

from headwater.infra.settings import Settings

ROOT = COMPOSE.parents[1]
GIVEN = {
    "HEADWATER_PIPELINE": "/pipelines/shop.py:clicks",
    "HEADWATER_PIPELINES": "/srv/pipelines",
    "HEADWATER_SIGNING_KEY": "key",
    "POSTGRES_PASSWORD": "password",
    "PREFECT_PASSWORD": "password",
    "S3_ACCESS_KEY": "name",
    "S3_SECRET_KEY": "secret",
}
OURS = ("service", "worker", "prefect", "mlflow")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(interpolated(COMPOSE.read_text(), GIVEN))[
    "services"
]


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_compose_refuses_to_start_without_its_variables(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        interpolated(COMPOSE.read_text(), {**GIVEN, missing: ""})


def test_no_secret_has_a_default() -> None:
    secret = re.compile(r"\$\{(\w*(?:PASSWORD|KEY)\w*)([^}]*)\}")
    found = secret.findall(COMPOSE.read_text())
    assert found
    assert {name for name, how in found if not how.startswith(":?")} == set()


@pytest.mark.parametrize("name", ["service", "worker"])
def test_headwater_gets_the_variables_that_it_reads(name: str) -> None:
    environment = SERVICES[name]["environment"]
    ours = {
        key.removeprefix("HEADWATER_").lower() for key in environment if key.startswith("HEADWATER_")
    }
    # A key is always needed, and one user owns the home.
    assert ours == set(Settings.model_fields) - {"artifacts", "now", "hosts", "group", "api_key"}


def test_prefect_and_mlflow_answer_to_their_own_pages_alone() -> None:
    origins = SERVICES["prefect"]["environment"]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert origins == "http://127.0.0.1:4200,http://localhost:4200"
    hosts = SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert hosts == "mlflow:5000,localhost:*,127.0.0.1:*"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_container_has_a_health_check_limits_and_a_grace_period(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["stop_grace_period"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["restart"] == "unless-stopped"
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_headwater_containers_write_to_volumes_alone_and_keep_their_host_name(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["hostname"] == name


def test_service_and_worker_share_one_home_and_nobody_else_has_it() -> None:
    homes = {
        name: [volume for volume in service.get("volumes", []) if str(volume).startswith("home:")]
        for name, service in SERVICES.items()
    }
    assert {name for name, found in homes.items() if found} == {"service", "worker"}
    assert "replicas" not in COMPOSE.read_text()


def test_the_image_is_pinned_and_nobody_in_it_is_root() -> None:
    lines = (ROOT / "infra" / "Dockerfile").read_text()
    installs = [line for line in re.findall(r"install [^&\n]*requirements/\S+", lines) if "-r" in line]
    assert len(installs) == 2
    assert all("--require-hashes" in line for line in installs)
    assert lines.rpartition("\nUSER ")[2].startswith("10001:10001\n")


def test_the_image_has_every_room() -> None:
    lines = (ROOT / "infra" / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text()
    for link in (ROOT / "src" / "headwater").iterdir():
        if link.is_symlink():
            assert f"COPY {link.name} {link.name}\n" in lines
            assert f"!{link.name}" in ignored


def test_no_registry_is_named() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^FROM (\S+)", (ROOT / "infra" / "Dockerfile").read_text(), re.MULTILINE)
    hosts = [image for image in images if "." in image.partition("/")[0] and "/" in image]
    assert hosts == []
