import os

from pydantic import SecretStr

from headwater.flows.stack.prefect_environment import environment, within
from headwater.infra.settings import Settings
from headwater.infra.settings import settings as read_settings

FULL = Settings(
    home="/tmp/hw",
    storage="s3://bucket/prefix/",
    database_url="postgresql://me:word@db/headwater",
    mlflow_uri="postgresql://db/mlflow?password=word",
    artifacts="s3://bucket/artifacts",
    s3_endpoint="http://127.0.0.1:9000",
    signing_key=SecretStr("key"),
)


def test_another_process_reads_the_same_settings():
    with within(environment(FULL, secrets=True)):
        settings = read_settings()
        assert settings.storage_uri == FULL.storage_uri
        assert settings.operational_url == FULL.operational_url
        assert settings.tracking_uri == FULL.tracking_uri
        assert settings.artifact_uri == FULL.artifact_uri
        assert settings.key() == b"key"


def test_secrets_are_left_out():
    variables = environment(FULL, secrets=False)
    assert set(variables) == {
        "HEADWATER_HOME",
        "HEADWATER_STORAGE",
        "HEADWATER_ARTIFACTS",
        "HEADWATER_S3_ENDPOINT",
    }


def test_a_relative_home_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert environment(Settings(home="here"), secrets=False) == {"HEADWATER_HOME": f"{tmp_path}/here"}


def test_variables_are_restored(monkeypatch):
    monkeypatch.setenv("HEADWATER_STORAGE", "before")
    with within({"HEADWATER_STORAGE": "s3://there", "HEADWATER_ARTIFACTS": "s3://too"}):
        assert os.environ["HEADWATER_STORAGE"] == "s3://there"
    assert os.environ["HEADWATER_STORAGE"] == "before"
    assert "HEADWATER_ARTIFACTS" not in os.environ
