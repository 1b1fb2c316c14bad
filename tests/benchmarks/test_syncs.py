"""The claim about syncs finds an answer that came too early; the trace is as strace writes it."""

from benchmarks.service.syncs import Counted, counted

_INBOX = "5</home/inbox/served.sqlite-wal>"
_WRITE = f'7 1.0 pwrite64({_INBOX}, "..{{\\"r-000000001\\"..", 16384, 56) = 16384'
_BEGIN = f"7 1.1 fdatasync({_INBOX} <unfinished ...>"
_END = "7 1.2 <... fdatasync resumed>) = 0"
_TELL = '6 1.3 write(9<socket:[4]>, "HTTP/1.1 200..{\\"id\\":\\"r-000000001\\"", 90) = 90'


def test_an_answer_after_its_sync() -> None:
    assert counted([_WRITE, _BEGIN, _END, _TELL]) == Counted(acknowledged=1, early=0, syncs=1)


def test_an_answer_during_its_sync_is_early() -> None:
    assert counted([_WRITE, _BEGIN, _TELL, _END]).early == 1


def test_a_sync_that_began_before_the_write_does_not_count() -> None:
    assert counted([_BEGIN, _WRITE, _END, _TELL]).early == 1


def test_a_sync_that_failed_does_not_count() -> None:
    failed = f"7 1.1 fdatasync({_INBOX}) = -1 EIO (Input/output error)"
    assert counted([_WRITE, failed, _TELL]) == Counted(acknowledged=1, early=1, syncs=0)


def test_a_label_waits_for_its_own_record() -> None:
    label = _WRITE.replace("r-", "k-")
    tell = '6 1.3 write(9<socket:[4]>, "HTTP/1.1 200..{\\"prediction_id\\":\\"r-000000001\\"", 90) = 90'
    assert counted([_WRITE, _BEGIN, _END, label, tell]).early == 1
    assert counted([_WRITE, label, _BEGIN, _END, tell]).early == 0


def test_what_the_trace_does_not_show_is_left_out() -> None:
    assert counted([_BEGIN, _END, _TELL]) == Counted(acknowledged=0, early=0, syncs=1)
