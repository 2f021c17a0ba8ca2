"""An outcome table as an upstream, over HTTP through `tw replay` and in-process."""

import json
import signal
import subprocess
import sys
import time

import aiohttp
import openai
import pytest

from server.engines.replay_table import ReplayTable, answer_of, prompts_of

ROWS = [
    {
        "id": "r1",
        "prompt": "What is  2 + 2?\n",
        "student_quality": 0.0,
        "teacher_quality": 1.0,
        "student_response": "The answer is 5.",
        "teacher_response": "It is 4 (学校で習った).",
        "student_logprobs": [-0.1, -0.5, -0.25, -2.0, -0.01],
        "student_cost": 0.000001,
        "teacher_cost": 0.002,
        "student_model": "small-8b",
        "teacher_model": "big-70b",
    },
    {
        "id": "r2",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Name a colour."},
            {"role": "assistant", "content": "Red."},
            {"role": "user", "content": "Another."},
        ],
        "student_quality": 0.5,
        "teacher_quality": 0.75,
        "teacher_response": "Blue.",
    },
    {"id": "r3", "prompt": "what is 2 + 2?", "student_quality": 1, "teacher_quality": 1, "student_response": "4"},
    {"id": "r4", "prompt": "What is 2 + 2?", "student_quality": 1, "teacher_quality": 1, "student_response": "never"},
]


@pytest.fixture(scope="module")
def table_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "outcomes.jsonl"
    path.write_text("".join(json.dumps({**row, "split": "test"}) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def table(table_path) -> ReplayTable:
    from policies.outcomes import read_outcomes

    return ReplayTable(read_outcomes(table_path))


def run(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "from server.cli import main; main()", "replay", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def url(table_path):
    process = run("--outcomes", str(table_path), "--port", "0")
    try:
        first = process.stdout.readline()
        assert first.startswith("3 prompts on http://127.0.0.1:"), first + process.stderr.read()
        assert first.endswith("/v1 as student, teacher, small-8b, big-70b\n")
        assert process.stdout.readline() == "1 rows repeat an earlier prompt and are never answered from.\n"
        yield first.split(" on ")[1].split(" as ")[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


async def post(url: str, body, path: str = "/chat/completions") -> tuple[int, dict, dict]:
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body) as response:
        return response.status, dict(response.headers), await response.json()


def chat(text: str, **more) -> dict:
    return {"model": "student", "messages": [{"role": "user", "content": text}], **more}


def test_rows_are_found_by_their_text(table):
    def found(**body) -> str | None:
        row = table.find(prompts_of(body))
        return row and row.id

    user = {"role": "user", "content": "What is 2 + 2?"}
    assert found(messages=[user]) == "r1"
    assert found(messages=[{"role": "system", "content": "You are kind."}, user]) == "r1"
    assert found(messages=[{**user, "content": [{"type": "text", "text": " What  is 2 + 2? "}]}]) == "r1"
    assert found(prompt="What is 2 + 2?") == "r1"
    assert found(prompt=["what is 2 + 2?"]) == "r3"
    assert found(messages=ROWS[1]["messages"]) == "r2"
    assert found(messages=[{"role": "user", "content": "Another."}]) == "r2"
    assert found(prompt="What is 3 + 3?") is None
    assert (len(table), table.repeated, table.without_text("teacher")) == (3, 1, 1)


def test_pieces_make_up_the_text_one_for_each_logprob(table):
    row = table.find(["What is 2 + 2?"])
    student, teacher = answer_of(row, "student"), answer_of(row, "teacher")
    assert student.text == "The answer is 5."
    assert len(student.pieces) == len(student.logprobs) == 5
    assert teacher.text == "It is 4 (学校で習った)."
    assert teacher.logprobs == ()
    assert student.cut(2).finish_reason == "length"


def test_a_row_without_text_says_so_and_nothing_else(table):
    answer = answer_of(table.find(["Another."]), "student")
    assert answer.is_stand_in
    assert answer.text == (
        "The outcome table holds no text of the student for this prompt; this sentence stands in for it."
    )


async def test_the_openai_sdk_gets_both_sides(url):
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        assert [model.id async for model in client.models.list()] == ["student", "teacher", "small-8b", "big-70b"]
        whole = await client.chat.completions.create(**chat("What is 2 + 2?", logprobs=True))
        assert whole.choices[0].message.content == "The answer is 5."
        assert [entry.logprob for entry in whole.choices[0].logprobs.content] == ROWS[0]["student_logprobs"]
        assert whole.usage.completion_tokens == 5
        assert whole.usage.cost == 0.000001
        body = {**chat("What is 2 + 2?"), "model": "big-70b", "stream_options": {"include_usage": True}}
        text = ""
        async for chunk in await client.chat.completions.create(**body, stream=True):
            text += chunk.choices[0].delta.content if chunk.choices else ""
        assert text == "It is 4 (学校で習った)."
        assert chunk.usage.cost == 0.002
        done = await client.completions.create(model="teacher", prompt="What is 2 + 2?", max_tokens=2)
        assert (done.choices[0].text, done.choices[0].finish_reason) == ("It is", "length")


async def test_which_row_answered_is_told(url):
    assert (await post(url, chat("What is 2 + 2?")))[1]["x-replay-row"] == "r1"


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (chat("What is love?"), 404, "unknown_prompt", "the outcome table has no row for this prompt: 'What is love?'"),
        ({**chat("What is 2 + 2?"), "model": "gpt"}, 404, "model_not_found", "The model `gpt` does not exist"),
        ({"model": "student"}, 400, None, "messages must be given as text"),
        ([1], 400, None, "the body must be a JSON object"),
        (chat("What is 2 + 2?", max_tokens="many"), 400, None, "max_tokens must be a whole number"),
    ],
)
async def test_bad_requests_get_openai_shaped_errors(url, body, status, code, words):
    got, _, answer = await post(url, body)
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["error"]["message"].startswith(words)


async def test_the_pace_is_kept_and_a_client_may_leave(table_path):
    process = run("--outcomes", str(table_path), "--port", "0", "--tokens-per-second", "20")
    try:
        url = process.stdout.readline().split(" on ")[1].split(" as ")[0]
        for stream in (False, True):
            began = time.monotonic()
            body = chat("What is 2 + 2?", stream=stream)
            async with aiohttp.ClientSession() as session, session.post(url + "/chat/completions", json=body) as got:
                await got.read()
            assert 0.2 <= time.monotonic() - began < 2
        async with aiohttp.ClientSession() as session, session.post(url + "/chat/completions", json=body) as got:
            await got.content.readany()
        assert (await post(url, chat("What is 2 + 2?")))[0] == 200
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert said == ""


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "the table has no rows"),
        (
            '{"id": "a", "prompt": "b", "teacher_quality": 1}\n',
            "column 'student_quality', row 1: the column is missing",
        ),
        ('{"id": "a", "prompt": "b", "student_quality": 2, "teacher_quality": 1}\n', "2 is out of range"),
    ],
)
def test_a_table_that_cannot_be_read_is_wrong_use(tmp_path, rows, words):
    path = tmp_path / "bad.jsonl"
    path.write_text(rows)
    process = run("--outcomes", str(path), "--port", "0")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said.startswith(f"tw replay: {path}")
    assert words in said
    assert said.count("\n") == 1


def test_a_taken_port_and_an_empty_split(table_path, url):
    port = url.split(":")[2].split("/")[0]
    process = run("--outcomes", str(table_path), "--port", port)
    assert "tw replay: cannot listen on 127.0.0.1:" + port in process.communicate(timeout=20)[1]
    assert process.returncode == 1
    process = run("--outcomes", str(table_path), "--port", "0", "--split", "val")
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) in ((2, "tw replay: no row belongs to the split 'val'\n"),)


async def test_several_teachers_answer_by_their_names(tmp_path) -> None:
    said = {"small": "5", "medium": "4?", "large": "It is 4."}
    rows = [
        {"id": "r1", "prompt": "2 + 2?", "model": model, "role": "student" if model == "small" else "teacher",
         "quality": 1, "response": text, "cost": 0.001 * i}
        for i, (model, text) in enumerate(said.items())
    ]  # fmt: skip
    rows += [{**rows[0], "id": "r2", "prompt": "3?"}, {**rows[1], "id": "r2", "prompt": "3?"}]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    process = run("--outcomes", str(path), "--port", "0")
    try:
        first = process.stdout.readline()
        assert first.endswith("/v1 as student, teacher, small, medium, large\n")
        assert process.stdout.readline() == "1 rows hold no text of the large; a sentence stands in.\n"
        url = first.split(" on ")[1].split(" as ")[0]
        for model, text, cost in (("teacher", "4?", 0.001), ("medium", "4?", 0.001), ("large", "It is 4.", 0.002)):
            status, _, body = await post(url, {**chat("2 + 2?"), "model": model})
            assert (status, body["choices"][0]["message"]["content"]) == (200, text)
            assert body["usage"]["cost"] == pytest.approx(cost)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
