"""The fixtures of the loop's tests."""

from tests.loop.conftest import bind, home, mlflow_template

__all__ = ["bind", "home", "mlflow_template"]
