"""Writing tables in the shape that `policies.outcomes` reads: what was collected, and what the decision log exports."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

PARQUET = (".parquet", ".pq")

_KINDS = {
    **dict.fromkeys(("student_quality", "teacher_quality", "student_cost", "teacher_cost"), "number"),
    **dict.fromkeys(("propensity", "at", "latency_ms"), "number"),
    **dict.fromkeys(("student_tokens_in", "student_tokens_out", "teacher_tokens_in", "teacher_tokens_out"), "count"),
    **dict.fromkeys(("student_logprobs", "student_entropies"), "numbers"),
    **dict.fromkeys(("quality", "cost"), "number"),
    **dict.fromkeys(("logprobs", "entropies"), "numbers"),
    **dict.fromkeys(("tokens_in", "tokens_out"), "count"),
    "student_samples": "texts",
    **dict.fromkeys(("student_sample_tokens", "student_cached_tokens", "teacher_cached_tokens"), "count"),
}
"""Columns that are no text."""


def write_table(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Parquet where the name says so (needs the extra `tables`), else JSON lines; appears whole or not at all.

    All rows have the columns of the first. Raises OSError; ImportError where pyarrow is missing.
    """
    temporary = out.with_name(out.name + f".tmp{os.getpid()}")
    try:
        if out.suffix.lower() in PARQUET:
            import pyarrow as arrow
            import pyarrow.parquet as parquet

            kinds = {"text": arrow.string(), "number": arrow.float64(), "count": arrow.int64()}
            kinds |= {"numbers": arrow.list_(arrow.float64()), "texts": arrow.list_(arrow.string())}
            schema = arrow.schema([(name, kinds[_KINDS.get(name, "text")]) for name in rows[0]])
            parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), temporary)
        else:
            temporary.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
