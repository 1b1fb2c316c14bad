"""What every test starts from: no profile, key or setting of whoever runs it."""

import os
import tempfile

from headwater.infra.offline import quiet

for name in [name for name in os.environ if name.startswith(("HEADWATER_", "PREFECT_", "MLFLOW_"))]:
    del os.environ[name]
quiet()
# Prefect reads these when it is first imported; no thread may log to a server that has ended.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="headwater-prefect-")
os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"

# These are run, by Alembic, by MLflow and by a test, or add tables to another module's; the rest is
# looked through for doctests.
collect_ignore_glob = [
    "infra/migrations/*",
    "infra/store/schema/declaration_tables.py",
    "infra/store/schema/queue_tables.py",
    "infra/store/schema/sequencing_tables.py",
    "registry/pyfunc_model.py",
    "tests/system/zygote.py",
]
