import subprocess
import sys

_ASK = """
import os, sys
os.environ["MLFLOW_LOGGING_LEVEL"] = "DEBUG"
from headwater.infra.offline import quiet
quiet()
print(os.environ["DO_NOT_TRACK"], os.environ["MLFLOW_LOGGING_LEVEL"])
print([name for name in ("mlflow", "prefect", "sqlalchemy", "boto3") if name in sys.modules])
"""


def test_quiet_imports_no_library_and_keeps_the_users_variables() -> None:
    completed = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    assert completed.stdout.splitlines() == ["true DEBUG", "[]"]
