"""An answer survives a kill before or after its label, and before its row."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.features.label_queue.answering import open_log
from tests.features.records import drain, prediction


@pytest.mark.parametrize(
    ("point", "written"), [("label.before_sync", False), ("label.after_sync", True)]
)
@pytest.mark.parametrize("again", ["sent again", "claimed by others", "sequenced"])
def test_an_answer_is_one_label_and_one_row(
    point: str, again: str, tmp_path: Path, *, written: bool
) -> None:
    log = open_log(tmp_path)
    log.record([replace(prediction("p"), version="1")])
    drain(log)
    queue = log.queue()
    queue.fill()
    assert len(queue.claim("ada", 1)) == 1
    killed = subprocess.run(
        [sys.executable, "-m", "tests.features.label_queue.answering", str(tmp_path), "ada", "p"],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "HEADWATER_KILL_AT": point},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert queue.counts().answers == 0
    if again == "sent again":
        assert queue.answer("ada", "p", True) == ("known" if written else "recorded")
    elif again == "claimed by others":
        queue.claim("bob", 1)
        assert [one.prediction_id for one in queue.claim("ada", 1)] == ([] if written else ["p"])
    else:
        drain(log)
        queue.fill()
    done = written or again == "sent again"
    assert queue.counts().answers == int(done)
    found = log.recorder.find("p")
    assert found is not None
    assert [(one.label.by, one.label.value) for one in found.labels] == [("ada", True)] * done
    assert queue.answer("ada", "p", True) == ("known" if done else "recorded")
    log.close()
    log.database.close()
