import subprocess
import sys

HEAVY = (
    "mlflow",
    "prefect",
    "polars",
    "pandas",
    "sklearn",
    "river",
    "sqlalchemy",
    "pydantic",
    "rich.table",
)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom headwater.cli import main\nsys.argv = ['headwater', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.splitlines()[-1] == "[]"
    assert "rebuild" in completed.stdout
