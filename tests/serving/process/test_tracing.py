"""Traces: off by default at no cost; if on, they continue the caller's trace and name predictions."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from tests.loop.conftest import PIPELINE
from tests.patience import PATIENCE_S, await_
from tests.serving.otlp import Receiver, receiving

from headwater.infra.settings import Settings
from headwater.serving.access.authentication import Authentication
from headwater.serving.client.client import Client
from headwater.serving.process.app import create_app

ROOT = Path(__file__).parents[3]
CALLER = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, TraceFlags(1))
UNTOLD = 7_654_321.25


@contextmanager
def serving(home: Settings, receiver: Receiver, log: Path) -> Iterator[str]:
    """Run the service with traces, as a user would; yield its address once it is ready."""
    variables = {
        **os.environ,
        "HEADWATER_HOME": str(home.root),
        "HEADWATER_OTEL": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "headwater.cli", "serve", "tests.loop.conftest:PIPELINE"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*command, "--port", "0", "--workers", "1"],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        found = re.search(r"at (http://\S+);", process.stdout.readline())
        assert found is not None, log.read_text()

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            with Client(found[1], timeout_s=PATIENCE_S) as client:
                return client.is_ready()

        try:
            await_(ready, log.read_text)
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)


def test_a_request_is_traced_from_the_caller_to_the_sync(home: Settings, tmp_path: Path) -> None:
    with receiving() as receiver, serving(home, receiver, tmp_path / "log") as address:
        with Client(address, timeout_s=PATIENCE_S) as client:
            with trace.use_span(NonRecordingSpan(CALLER)):
                client.predict({"a": 1.0, "b": UNTOLD}, id="order-17")
                client.label("order-17", True, key="first")
            client.predict_many([{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0}])
        await_(lambda: len(receiver.named("POST /predict")) == 2)
        await_(lambda: receiver.named("publish"))
    request, many = receiver.named("POST /predict")
    caller = (f"{CALLER.trace_id:032x}", f"{CALLER.span_id:016x}")
    assert (request.trace_id, request.parent_id) == caller
    assert request.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/predict",
    }
    predicted, *_ = receiver.named("predict")
    assert (predicted.trace_id, predicted.parent_id) == (request.trace_id, request.span_id)
    assert predicted.attributes == {
        "headwater.pipeline": PIPELINE.name,
        "headwater.count": 1,
        "headwater.prediction_id": "order-17",
        "headwater.version": "1",
        "headwater.role": "champion",
    }
    synced, *_ = receiver.named("sync")
    assert (synced.parent_id, synced.attributes) == (predicted.span_id, {"headwater.records": 1})
    (labelled,) = receiver.named("label")
    assert labelled.trace_id == request.trace_id
    assert labelled.attributes["headwater.prediction_id"] == "order-17"
    assert many.parent_id == ""
    assert len(receiver.named("predict")[1].attributes["headwater.prediction_ids"]) == 2
    assert {span.service for span in receiver.spans} == {"headwater", "headwater-keeper"}
    (published,) = receiver.named("publish")
    assert published.attributes == {"headwater.pipeline": PIPELINE.name, "headwater.version": "1"}
    everything = b"".join(receiver.bodies)
    assert str(UNTOLD).encode() not in everything
    assert not [span for span in receiver.spans if "health" in str(span.attributes)]


def test_without_tracing_the_service_is_the_plain_one(home: Settings) -> None:
    assert type(create_app((PIPELINE,), home)) is Authentication


def test_without_tracing_opentelemetry_is_not_imported() -> None:
    script = """
import sys
from headwater.infra.settings import Settings
from headwater.infra.tracing import begin_tracing, past_span, span
import headwater.infra.store.database, headwater.serving.client.client
assert not begin_tracing(Settings(), "test")
with span("nothing", {"a": 1}):
    past_span("nothing", 0, {})
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE_S)


def test_tracing_without_the_extra_names_what_to_install() -> None:
    script = """
import sys
from headwater.infra.settings import Settings
from headwater.infra.tracing import begin_tracing
from headwater.spec.errors import DeclarationError
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None
try:
    begin_tracing(Settings(otel=True), "test")
except DeclarationError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    assert re.search(r"(?s)not installed.*headwater\[otel\]", ended.stdout)
