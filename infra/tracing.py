"""Traces for OpenTelemetry, off unless ``HEADWATER_OTEL`` is set; ``OTEL_*`` says where they go.

A span bears names, versions, counts and prediction ids; never features, labels, keys or the text of an
error, which may quote them. Where tracing is off, nothing of OpenTelemetry is imported here.
"""

import atexit
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headwater.infra.settings import Settings
from headwater.spec.errors import DeclarationError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["SpanAttributes", "begin_tracing", "past_span", "span", "tracer"]

SpanAttributes = Mapping[str, str | int]
"""What a span says, by name."""

_NAME = "headwater"
_began = False


def begin_tracing(settings: Settings, service: str) -> bool:
    """Begin to send traces from this process, if the settings say so; once is enough.

    A process that has set up OpenTelemetry by itself, such as a program that calls headwater, keeps its
    own way of sending.

    Parameters
    ----------
    settings
        Whether to.
    service
        The service's name in the traces, unless ``OTEL_SERVICE_NAME`` is set.

    Returns
    -------
    bool
        Whether traces are sent.

    Raises
    ------
    DeclarationError
        If OpenTelemetry is not installed.
    """
    global _began  # noqa: PLW0603 - a process has one way of sending traces
    if not settings.otel or _began:
        return settings.otel
    try:
        from opentelemetry import trace  # noqa: PLC0415 - only where it is switched on
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DeclarationError(
            f"HEADWATER_OTEL is set, and {error.name} is not installed",
            hint="pip install 'headwater[otel]', or unset HEADWATER_OTEL",
        ) from error
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        attributes = Resource({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=Resource.create().merge(attributes), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        atexit.register(provider.shutdown)
        trace.set_tracer_provider(provider)
    _began = True
    return True


def tracer() -> "Tracer":
    """Return the tracer; call it only if :func:`begin_tracing` returned True."""
    from opentelemetry import trace  # noqa: PLC0415 - only where it is switched on

    return trace.get_tracer(_NAME)


@contextmanager
def span(name: str, attributes: SpanAttributes) -> Iterator[None]:
    """Trace a block; do nothing if tracing is off.

    Parameters
    ----------
    name
        What is done.
    attributes
        What to say of it, each name after ``headwater.``.
    """
    if not _began:
        yield
        return
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - only where it is switched on

    with tracer().start_as_current_span(
        name, attributes=_named(attributes), record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield
        except Exception as error:
            made.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def past_span(name: str, began_ns: int, attributes: SpanAttributes) -> None:
    """Trace an operation that has just ended, for callers that decide by its end.

    Parameters
    ----------
    name, attributes
        As for :func:`span`.
    began_ns
        When it began, in nanoseconds since 1970, as :func:`time.time_ns` gives them.
    """
    if _began:
        tracer().start_span(name, start_time=began_ns, attributes=_named(attributes)).end(time.time_ns())


def _named(attributes: SpanAttributes) -> dict[str, str | int]:
    return {f"{_NAME}.{name}": value for name, value in attributes.items()}
