"""Whole lines or none, found again by id, and never more on the disk than was allowed."""

import json
import os
from pathlib import Path

import pytest

from router.record import DecisionRecord, Reason, StepRecord
from server.decision_log import DecisionLog, read_rows


def record(id: str, at: float = 0.0) -> DecisionRecord:
    return DecisionRecord(
        id=id, at=at, endpoint="chat", model="auto", route="student", reason=Reason.POLICY_KEEP,
        steps=(StepRecord("defer", "keep", -1.0, 0.0, 0.9),), policy="p", policy_version="v", budget_version=1,
        budget_share=0.2, refused_by=None, status=200, error=None, key_id="", user="", tenant="", conversation="",
        tags=(), latency_ms=1.0, first_byte_ms=1.0, student_tokens=3, teacher_tokens=0, teacher_usd=0.0,
        teacher_calls=0,
    )  # fmt: skip


def open_log(directory: Path, segment_bytes: int = 1 << 20, segments: int = 8) -> DecisionLog:
    return DecisionLog(directory, segment_bytes=segment_bytes, segments=segments)


def test_a_record_is_found_by_any_worker_with_the_feedback_that_another_took(tmp_path: Path) -> None:
    writer, other = open_log(tmp_path), open_log(tmp_path)
    id = writer.new_id()
    writer.append(record(id))
    other.append_feedback(id, 0.5, at=7.0, key_id="key_1")
    found = open_log(tmp_path).find(id)
    assert found is not None
    taken = {"step": "defer", "action": "keep", "score": -1.0, "shift": 0.0, "propensity": 0.9}
    assert found["steps"] == [{**taken, "admitted": None, "details": {}}]
    assert [row["quality"] for row in found["feedback"]] == [0.5]
    assert found["version"] == 1


@pytest.mark.parametrize("id", ["", "dec", "dec_../../x_1_y", "dec_00000000_1_00000000", "dec_*_1_*"])
def test_an_id_that_was_never_given_is_not_found(tmp_path: Path, id: str) -> None:
    log = open_log(tmp_path)
    log.append(record(log.new_id()))
    assert log.find(id) is None


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for _ in range(3):
        log.append(record(log.new_id()))
    path = next(tmp_path.glob("*.jsonl"))
    os.truncate(path, path.stat().st_size - 10)
    assert len(list(read_rows(tmp_path))) == 2


def test_segments_rotate_and_the_oldest_go(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=2000, segments=3)
    ids = [log.new_id() for _ in range(40)]
    for id in ids:
        log.append(record(id))
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    kept = [row["id"] for row in read_rows(tmp_path)]
    assert kept == ids[-len(kept) :]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.glob("*.jsonl"))


def test_a_full_disk_is_counted_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path)
    real = os.write

    def full(file: int, line: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.append(record(log.new_id()))
    monkeypatch.setattr(os, "write", real)
    log.append(record(log.new_id()))
    assert log.lost == 1
    assert len(list(read_rows(tmp_path))) == 1


def test_a_line_cut_short_by_the_disk_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, line: real(file, line[:20]))
    log.append(record(log.new_id()))
    monkeypatch.setattr(os, "write", real)
    log.append(record(log.new_id()))
    assert len(list(read_rows(tmp_path))) == 1
    assert json.loads(next(tmp_path.glob("*.jsonl")).read_text().splitlines()[-1])["version"] == 1
