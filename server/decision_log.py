"""The decision log: one JSON line per finished request, feedback or late shadow score, appended with a single write.

A line is either wholly there or is the last, torn one of a process that died. Each worker writes segments of its own,
`decisions-<start>-<worker>-<n>.jsonl`, so that no two processes share a file and rotation needs no lock.
"""

import os
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from router.record import DecisionRecord, ShadowRecord

_REMEMBERED = 4096


class DecisionLog:
    """The segments of one worker. `append` is one `write(2)` of one line; it is not fsynced (see docs/operators.md)."""

    def __init__(self, directory: Path, *, segment_bytes: int, segments: int) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segments = segments
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The worker's token is part of every decision id, so that a record is found without reading every segment.
        self.worker = secrets.token_hex(4)
        self._stem = f"decisions-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{self.worker}"
        self._number = 0
        self._size = 0
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._feedback: dict[str, list[dict[str, Any]]] = {}
        self._shadows: dict[str, bytes] = {}
        self._sequence = 0
        self.lost = 0
        """Lines that could not be written (disk full, say)."""
        self._file = self._open()
        self._prune()

    def new_id(self) -> str:
        # Not a secret (reading a decision takes its key), so no system call for better chance.
        self._sequence += 1
        return f"dec_{self.worker}_{self._sequence}_{random.getrandbits(32):08x}"

    def append(self, record: DecisionRecord) -> None:
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        self._recent[record.id] = line
        if len(self._recent) > _REMEMBERED:
            forgotten, _ = self._recent.popitem(last=False)
            self._feedback.pop(forgotten, None)
            self._shadows.pop(forgotten, None)
        self._write(line)

    def append_feedback(self, decision_id: str, quality: float, at: float, key_id: str) -> None:
        feedback = {"feedback_on": decision_id, "quality": quality, "at": at, "key_id": key_id}
        if decision_id in self._recent:
            self._feedback.setdefault(decision_id, []).append(feedback)
        self._write(orjson.dumps(feedback, option=orjson.OPT_APPEND_NEWLINE))

    def append_shadow(self, decision_id: str, shadow: ShadowRecord) -> None:
        """What a shadow said after the record was written."""
        line = orjson.dumps({"shadow_on": decision_id, "shadow": shadow}, option=orjson.OPT_APPEND_NEWLINE)
        if decision_id in self._recent:
            self._shadows[decision_id] = line
        self._write(line)

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """The newest records of this worker, oldest first."""
        return [orjson.loads(line) for line in list(self._recent.values())[-limit:]]

    def find(self, decision_id: str) -> dict[str, Any] | None:
        """The record with its feedback, from memory or else from the segments of the worker that wrote it."""
        line = self._recent.get(decision_id)
        if line is not None:
            row: dict[str, Any] = orjson.loads(line)
            if decision_id in self._feedback:
                row["feedback"] = self._feedback[decision_id]
            if decision_id in self._shadows:
                row["shadow"] = orjson.loads(self._shadows[decision_id])["shadow"]
            return row
        parts = decision_id.split("_")
        if len(parts) != 4 or parts[0] != "dec" or not parts[1].isalnum():
            return None
        needle = decision_id.encode()
        found: dict[str, Any] | None = None
        shadow: dict[str, Any] | None = None
        feedback: list[dict[str, Any]] = []
        # Feedback may have reached another worker, so every segment is searched once the record is known to exist.
        for path in sorted(self._directory.glob(f"decisions-*-{parts[1]}-*.jsonl")):
            for row in _rows_with(path, needle):
                if row.get("id") == decision_id:
                    found = row
                elif row.get("shadow_on") == decision_id:
                    shadow = row["shadow"]
        if found is None:
            return None
        if shadow is not None:
            found["shadow"] = shadow
        for path in sorted(self._directory.glob("decisions-*.jsonl")):
            feedback.extend(row for row in _rows_with(path, needle) if row.get("feedback_on") == decision_id)
        if feedback:
            found["feedback"] = feedback
        return found

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> int:
        path = self._directory / f"{self._stem}-{self._number:05d}.jsonl"
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _write(self, line: bytes) -> None:
        if self._size + len(line) > self._segment_bytes and self._size:
            self._rotate()
        try:
            written = os.write(self._file, line)
            if written != len(
                line
            ):  # a disk that fills up in mid-line: end the torn line so that the next one is whole
                self.lost += 1
                os.write(self._file, b"\n")
        except OSError:
            # A full disk must not take the answers down with it; the count is a metric with an alert.
            self.lost += 1
            return
        self._size += written

    def _rotate(self) -> None:
        os.close(self._file)
        self._number += 1
        self._size = 0
        self._file = self._open()
        self._prune()

    def _prune(self) -> None:
        """Keeps the newest segments of the directory, whichever worker wrote them: restarts leave some behind, too."""
        try:
            paths = sorted(self._directory.glob("decisions-*.jsonl"), key=lambda path: path.stat().st_mtime)
            for path in paths[: -self._segments]:
                path.unlink(missing_ok=True)
        except OSError:  # another worker prunes at the same time; the next rotation tries again
            return


def read_rows(directory: Path) -> Iterator[dict[str, Any]]:
    """All whole lines of all workers, file by file; torn last lines are passed over."""
    for path in sorted(directory.glob("decisions-*.jsonl")):
        yield from _rows_with(path, b"")


def _rows_with(path: Path, needle: bytes) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for line in file:
                if needle in line and line.endswith(b"\n"):
                    try:
                        yield orjson.loads(line)
                    except orjson.JSONDecodeError:
                        continue
    except FileNotFoundError:  # rotated away while reading
        return
