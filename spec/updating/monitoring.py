"""How a pipeline is monitored: the predictions of a window, and how many are enough to judge."""

import msgspec

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError
from headwater.spec.updating.pace import check_count

__all__ = ["Monitoring"]


class Monitoring(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Windows by time of prediction, and the reference that they are compared with.

    Parameters
    ----------
    window
        Length of a window. Evidence has windows that begin with the champion; the table of performance
        has them at whole multiples of the length since 1970, UTC.
    rows
        Instead of `window`: how many predictions make a window.
    label_windows
        How many of the newest mature windows labels are judged over together; the champion's windows
        before are what they are compared with, and at most half of its windows are taken. Of one
        window's labels a small loss often cannot be told from luck.
    least
        Fewer predictions than this are ``insufficient_data``; fewer labels leave a score out.
    reference_rows
        How many of the newest examples that the champion has learned are the reference.
    slices
        Features by whose values performance is also given; text or bool.
    report
        Whether Evidently's report is kept where something needs somebody, or an update is due. It costs
        seconds, and nothing is decided by it.

    Raises
    ------
    DeclarationError
        If both `window` and `rows` are given, or a number is no count.
    """

    window: Duration | None = None
    rows: int | None = None
    label_windows: int = 1
    least: int = 200
    reference_rows: int = 20_000
    slices: tuple[str, ...] = ()
    report: bool = True

    def __post_init__(self) -> None:
        if self.window is not None and self.rows is not None:
            raise DeclarationError(
                "Monitoring has both window= and rows=",
                hint='write window="1d" for windows by time, or rows=5_000 for windows by amount',
            )
        if self.window is not None:
            duration(self.window, "window")
        for field in ("rows", "least", "reference_rows"):
            value = getattr(self, field)
            if field == "rows" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 2:
                raise DeclarationError(
                    f"Monitoring({field}={value!r}) is not a count", hint=f"write {field}=1_000, say"
                )
        check_count("Monitoring", self.label_windows)
        if not isinstance(self.report, bool):
            raise DeclarationError(
                f"report={self.report!r} is neither True nor False",
                hint="leave it out, or write report=False",
            )
        if not isinstance(self.slices, tuple) or not all(isinstance(s, str) for s in self.slices):
            raise DeclarationError(
                f"slices={self.slices!r} is not a tuple of feature names",
                hint='write slices=("carrier",)',
            )

    @property
    def span(self) -> Duration | None:
        """The length of a window by time, a day by default; None for windows by amount."""
        return None if self.rows is not None else self.window or "1d"
