"""Metrics: each worker shows the counts of all workers, of those that ended too."""

from collections.abc import Callable

import httpx
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import Opener
from tests.serving.running import running

from headwater.infra.settings import Settings
from headwater.serving.api.schemas import PredictionAnswer
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.metrics.counters import Counters, forget_counters
from headwater.serving.metrics.service_metrics import Metrics
from headwater.serving.process.app import create_app
from headwater.serving.published.published_models import PublishedModels

Eventually = Callable[[Callable[[], bool]], None]
ONE = {"features": {"a": 1.0, "b": 2.0}}


def totals(client: httpx.Client) -> dict[str, float]:
    """Return the samples that a worker shows, by name and labels."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_each_worker_shows_the_sum_over_all(
    keeper: Keeper, home: Settings, open_service: Opener, eventually: Eventually
) -> None:
    one, another = open_service(), open_service()
    for client, count in ((one, 3), (another, 2)):
        for _ in range(count):
            client.post("/predict", json=ONE)
    another.post("/predict", json={"predictions": [{"id": "p", **ONE}, {"id": "q", **ONE}]})
    one.post("/labels", json={"labels": [{"prediction_id": "p", "value": True}, 7]})
    another.post("/labels", json={"prediction_id": "p", "value": True, "key": "k"})
    another.post("/labels", json={"prediction_id": "p", "value": True, "key": "k"})
    one.post("/predict", json={"features": {}})
    another.get("/predictions/none")
    another.get("/nothing")
    eventually(lambda: totals(one)["headwater_syncs_total line"] == 9)
    for client in (one, another):
        found = totals(client)
        assert found["headwater_predictions_total line champion 1"] == 7
        assert found["headwater_prediction_seconds_count line"] == 6
        assert found["headwater_prediction_seconds_bucket +Inf line"] == 6
        assert found["headwater_prediction_seconds_sum line"] > 0
        assert found["headwater_labels_total line recorded"] == 2
        assert found["headwater_labels_total line known"] == 1
        assert found["headwater_labels_total line refused"] == 1
        assert found["headwater_problems_total 422"] == 1
        assert found["headwater_problems_total 404"] == 2
        assert found["headwater_records_waiting line"] == 0
        assert found["headwater_learned_to line"] == 200
        assert found["headwater_swap_failures_total line"] == 0


def test_the_histogram_is_cumulative(home: Settings) -> None:
    metrics = Metrics(Counters(home))
    line = metrics.of("line")
    answer = PredictionAnswer("p", 0.5, "1", "champion")
    for seconds in (0.0004, 0.001, 0.03, 9.0):
        line.predicted([answer], seconds)
    content, _ = metrics.text("")
    (family,) = [
        family
        for family in text_string_to_metric_families(content.decode())
        if family.name == "headwater_prediction_seconds"
    ]
    found = {sample.labels.get("le"): sample.value for sample in family.samples if "le" in sample.labels}
    assert (found["0.0005"], found["0.001"], found["0.025"], found["0.05"]) == (1, 2, 2, 3)
    assert (found["2.5"], found["+Inf"]) == (3, 4)
    metrics.close()


def test_an_ended_worker_s_counts_stay_and_its_gauges_do_not(
    keeper: Keeper, home: Settings, open_service: Opener
) -> None:
    stays = open_service()
    with running(create_app([PIPELINE], home)) as ends:
        ends.post("/predict", json=ONE)
    first = Counters(home)
    first.values[first.place("headwater_records_waiting", ("line",))] = 5
    assert totals(stays)["headwater_records_waiting line"] == 5
    first.close()
    found = totals(stays)
    assert found["headwater_predictions_total line champion 1"] == 1
    assert found["headwater_records_waiting line"] == 0
    with running(create_app([PIPELINE], home)) as next_:  # takes the file over, and counts on
        next_.post("/predict", json=ONE)
        assert totals(next_)["headwater_predictions_total line champion 1"] == 2
    assert len(list((home.root / "live" / "counters").glob("*.values"))) == 2


def test_a_new_service_forgets_only_the_counts_of_ended_ones(home: Settings) -> None:
    lives, ended = Counters(home), Counters(home)
    for counters in (lives, ended):
        counters.values[counters.place("headwater_problems", ("404",))] += 1
    ended.close()
    forget_counters(home)
    assert [cells.values for cells in lives.all_cells()] == [(1.0,)]
    lives.close()


def test_a_name_beyond_the_file_s_room_harms_no_other(home: Settings) -> None:
    counters = Counters(home)
    big = counters.place("headwater_problems", ("big",), size=16_000)
    places = {counters.place("headwater_problems", (str(n),), size=200) for n in range(3)}
    assert places == {big + 16_000, 0}
    counters.close()


def test_a_state_that_does_not_load_is_counted(
    keeper: Keeper, home: Settings, client: httpx.Client, eventually: Eventually
) -> None:
    eventually(lambda: totals(client)["headwater_learned_to line"] == 200)
    live = PublishedModels(PIPELINE, home)
    serving = live.read()
    assert serving is not None
    first = serving.states[0]
    artifacts = [(live.folder / f"{first.name}.{kind}").read_bytes() for kind in ("recipe", "proof")]
    for kind, content in zip(("state", "recipe", "proof"), (b"damaged", *artifacts), strict=True):
        (live.folder / f"other.{kind}").write_bytes(content)
    live.publish(replace(serving, number=2, states=(replace(first, name="other"),)))
    eventually(lambda: totals(client)["headwater_swap_failures_total line"] == 1)
    assert client.post("/predict", json=ONE).status_code == 200


def test_a_cut_line_of_names_is_left_out(home: Settings) -> None:
    first = Counters(home)
    first.values[first.place("headwater_problems", ("404",))] = 3
    first.close()
    (names,) = (home.root / "live" / "counters").glob("*.names")
    names.write_bytes(names.read_bytes() + b'["headwater_prob')
    second = Counters(home)
    assert [cells.values for cells in second.all_cells()] == [(3.0,)]
    second.close()
