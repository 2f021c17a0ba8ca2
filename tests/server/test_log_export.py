"""The decision log as a table, through the command line."""

from pathlib import Path

import pyarrow.parquet as parquet
from click.testing import CliRunner

from policies.outcomes import read_outcomes
from server.cli import main
from tests.server.gateways import ScriptedPolicy, running_gateway
from tests.upstreams import answer, scripted_pair

QUESTION = "What is 17 + 26?"


async def test_decisions_and_feedback_become_rows_of_an_outcome_table(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "log.parquet"
    async with scripted_pair({QUESTION: answer("42")}, {QUESTION: answer("It is 43")}) as pair:
        scores = iter((-1.0, 1.0))
        policy = ScriptedPolicy(lambda observation: next(scores))
        async with running_gateway(
            state, pair.student.url, pair.teacher.url, policy=policy, budget="At most 100 teacher calls.", log_text=True
        ) as gateway:
            ids = [(await gateway.chat(QUESTION))[1]["x-tw-decision-id"] for _ in range(2)]
            for quality, decision in zip((0.0, 1.0), ids, strict=True):
                body = {"decision_id": decision, "quality": quality}
                async with gateway.http.post(f"{gateway.url}/v1/feedback", json=body) as response:
                    assert response.status == 200
    result = CliRunner().invoke(main, ["log", "export", "--state-dir", str(state), "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = parquet.read_table(out).to_pylist()
    assert [row["id"] for row in rows] == ids
    assert [row["prompt"] for row in rows] == [QUESTION] * 2
    assert [(row["student_response"], row["teacher_response"]) for row in rows] == [("42", None), ("42", "It is 43")]
    assert [(row["student_quality"], row["teacher_quality"]) for row in rows] == [(0.0, None), (None, 1.0)]
    assert all(0 < row["propensity"] <= 1 for row in rows)
    assert {row["policy"] for row in rows} == {"v1"}


async def test_what_prefix_caches_held_becomes_columns(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "log.parquet"
    first = [{"role": "user", "content": QUESTION}]
    second = [*first, {"role": "assistant", "content": "42"}, {"role": "user", "content": "Sure?"}]
    async with (
        scripted_pair({QUESTION: answer("42")}) as pair,
        running_gateway(state, pair.student.url, pair.teacher.url, log_text=True) as gateway,
    ):
        for messages in (first, second):
            await gateway.chat("", messages=messages)
    result = CliRunner().invoke(main, ["log", "export", "--state-dir", str(state), "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = [(row.student_cached_tokens, row.teacher_cached_tokens) for row in read_outcomes(out)]
    assert found == [(None, None), (5 + 1, 0)]


def test_an_empty_log_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    result = CliRunner().invoke(
        main, ["log", "export", "--to", "jsonl", "--state-dir", str(tmp_path), "--out", str(out)]
    )
    assert result.exit_code == 1
    assert "no decisions in" in result.output
    assert not out.exists()
