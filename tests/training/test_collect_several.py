"""`tw collect` with several teachers."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from policies.outcomes import Answered, read_outcomes
from policies.samples import SampleWish
from tests.training.test_collect import QUICK, Upstream, completion, upstream
from training.asking import Endpoint
from training.collecting import CannotCollect, Question, collect
from training.grades import named_grade
from training.teacher_options import per_teacher

__all__ = ["upstream"]

SAID = {"student": "5", "medium": "The answer is 4.", "large": "4"}
QUESTIONS = [
    Question("q1", [{"role": "user", "content": "2+2?"}], "2+2?", "4", "sums", "train"),
    Question("q2", [{"role": "user", "content": "3+1?"}], "3+1?", "4", "sums", "test"),
]


def endpoints(url: str) -> tuple[Endpoint, Endpoint, Endpoint]:
    return (
        Endpoint("student", url, "student", price_in=0.1, price_out=0.2),
        Endpoint("teacher", url, "medium", price_in=1.0, price_out=2.0, label="medium"),
        Endpoint("teacher", url, "large", price_in=10.0, price_out=20.0, label="big"),
    )


async def collected(out: Path, upstream: Upstream, **more: Any) -> Any:
    student, first, second = endpoints(upstream.url)
    how = more.pop("how", QUICK)
    graded = named_grade("numeric", Endpoint("judge", upstream.url, "medium"), how)
    return await collect(QUESTIONS, out, student, first, graded, how, grade_name="numeric", others=(second,), **more)


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
async def test_every_model_gets_a_row_with_its_own_bill(upstream: Upstream, tmp_path: Path, name: str) -> None:
    upstream.answer = lambda body: completion(SAID[body["model"]])
    counts = await collected(tmp_path / name, upstream)
    assert (counts.rows, counts.asked, counts.failed) == (2, 2, 0)
    first, second = read_outcomes(tmp_path / name)
    assert (first.id, first.split, first.group, first.student_response, first.student_quality) == (
        "q1", "train", "sums", "5", 0.0,
    )  # fmt: skip
    assert first.teachers == (
        Answered("medium", 1.0, "The answer is 4.", 20 / 1e6),
        Answered("big", 1.0, "4", 200 / 1e6),
    )
    assert first.student_logprobs == (-0.5,)
    assert second.teachers[1].model == "big"
    assert not (tmp_path / f"{name}.partial").exists()


async def test_what_failed_is_asked_again_and_its_request_with_it(upstream: Upstream, tmp_path: Path) -> None:
    def down(body: dict[str, Any]) -> web.Response:
        if body["model"] == "large" and body["messages"][0]["content"] == "3+1?":
            return web.json_response({"error": {"message": "no"}}, status=404)
        return completion(SAID[body["model"]])

    upstream.answer = down
    counts = await collected(tmp_path / "t.jsonl", upstream)
    assert (counts.failed, counts.first_error) == (1, "q2: big: HTTP 404: no")
    assert read_outcomes(tmp_path / "t.jsonl")[1].teachers[1] == Answered("big")
    upstream.answer = lambda body: completion(SAID[body["model"]])
    counts = await collected(tmp_path / "t.jsonl", upstream)
    assert (counts.asked, counts.failed) == (1, 0)
    assert read_outcomes(tmp_path / "t.jsonl")[1].teachers[1].quality == 1.0


async def test_a_run_is_not_gone_on_with_for_other_teachers(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answer = lambda _: web.json_response({"error": {"message": "no"}}, status=404)
    with pytest.raises(CannotCollect, match="no prompt was answered by all models"):
        await collected(tmp_path / "t.jsonl", upstream)
    student, first, _ = endpoints(upstream.url)
    graded = named_grade("numeric", first, QUICK)
    with pytest.raises(CannotCollect, match="was begun with other models"):
        await collect(QUESTIONS, tmp_path / "t.jsonl", student, first, graded, QUICK, grade_name="numeric")


async def test_an_answer_of_another_teacher_is_not_taken_for_the_one_asked(upstream: Upstream, tmp_path: Path) -> None:
    def gateway(body: dict[str, Any]) -> web.Response:
        response = completion(SAID[body["model"]])
        side = "student" if body["model"] == "student" else "teacher"
        response.headers["x-tw-route"] = side
        response.headers["x-tw-reason"] = "other_teacher" if body["model"] == "large" else f"forced_{side}"
        return response

    upstream.answer = gateway
    with pytest.raises(CannotCollect, match="q1: big: the gateway answered by its teacher: other_teacher"):
        await collected(tmp_path / "t.jsonl", upstream)


async def test_samples_of_the_student_stand_in_its_row(upstream: Upstream, tmp_path: Path) -> None:
    from dataclasses import replace

    upstream.answer = lambda body: completion(SAID[body["model"]])
    await collected(tmp_path / "t.jsonl", upstream, how=replace(QUICK, samples=SampleWish(2, 8)))
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["student_samples"] is None for row in rows[:3]] == [False, True, True]
    assert read_outcomes(tmp_path / "t.jsonl")[0].student_samples is not None


def test_options_of_each_teacher_by_their_place() -> None:
    assert per_teacher((), (), (), (), (), student="student") == [(None, "teacher", "TW_TEACHER_API_KEY", None, None)]
    assert per_teacher(("http://a/v1",), ("m",), ("KEY",), ((1.0, 2.0),), (), student="s") == [
        ("http://a/v1", "m", "KEY", (1.0, 2.0), None)
    ]
    assert per_teacher(("http://a/v1",), ("m", "n"), ("A", "B"), (), ("x", "y"), student="s") == [
        ("http://a/v1", "m", "A", None, "x"),
        ("http://a/v1", "n", "B", None, "y"),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((("http://a/v1", "http://b/v1"), ("m",), (), (), ()), "2 teachers: give --teacher-model for each"),
        (((), ("m", "n", "o"), ("A", "B"), (), ()), "--teacher-key-env is given 2 times for 3 teachers"),
        (((), ("m", "m"), (), (), ()), "teachers called m, m: give each a --teacher-label of its own"),
        (((), ("m", "s"), (), (), ()), "not the student's name"),
        (((), ("m", "n"), (), (), ("x",)), "--teacher-label for each or for none"),
    ],
)
def test_options_that_do_not_fit_together_are_said(options: Any, said: str) -> None:
    with pytest.raises(CannotCollect, match=said):
        per_teacher(*options, student="s")
