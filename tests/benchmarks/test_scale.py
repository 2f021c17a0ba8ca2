"""The tables that benchmarks/scale.py makes are outcome tables, and reading keeps no more than it may."""

from pathlib import Path

import pytest

from benchmarks import scale
from policies.outcomes import read_outcomes


def test_a_table_made_in_chunks_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "CHUNK", 70)
    scale.write(tmp_path / "t.parquet", 200)
    rows = read_outcomes(tmp_path / "t.parquet")
    assert [row.id for row in rows] == [f"row-{i}" for i in range(200)]
    assert all((f"answer is {row.reference}." in (row.student_response or "")) == row.student_quality for row in rows)
    assert {row.split for row in rows} == {"train", "val", "test"}


def test_no_more_rows_are_kept_than_asked_for(tmp_path: Path) -> None:
    scale.write(tmp_path / "t.parquet", 300)
    found = scale.read(tmp_path / "t.parquet", 40)
    assert (found["rows"], found["kept"]) == (300, 40)
    assert found["peak_mb"] >= found["before_mb"] > 0
