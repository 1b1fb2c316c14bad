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


def test_it_is_quiet_before_any_library_is_there_and_leaves_what_the_user_set() -> None:
    found = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["true DEBUG", "[]"]
