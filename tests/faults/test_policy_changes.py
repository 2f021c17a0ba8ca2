"""Two real workers under load while an operator adds, tries, promotes and rolls back policies from the command line."""

import asyncio
from pathlib import Path

import aiohttp

from policies.artifact import Manifest, save_artifact
from server.policy_store import PolicyStore
from tests.serving import TW, RunningGateway, gateway
from tests.upstreams import answer, scripted_pair

QUESTION = "What is 17 + 26?"


def constant(folder: Path, kind: str) -> Path:
    save_artifact(folder / kind, Manifest(kind, kind, "prompt"), {})
    return folder / kind


async def tw_policy(running: RunningGateway, *words: str) -> str:
    command = [TW, "policy", words[0], "--state-dir", str(running.state), *words[1:]]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, words
    return out.decode()


async def test_no_request_fails_while_two_workers_change_policies(tmp_path: Path) -> None:
    student, teacher = constant(tmp_path, "always-student"), constant(tmp_path, "always-teacher")
    ended = False
    statuses: dict[int, int] = {}
    async with (
        scripted_pair({QUESTION: answer("The answer is 42.")}, {}) as pair,
        gateway(tmp_path, pair.student.url, pair.teacher.url, policy=student, workers=2) as running,
        # A connection for each request, so that both workers get some.
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
    ):

        async def client() -> None:
            while not ended:
                body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
                talk = {"x-tw-conversation": f"c{sum(statuses.values())}"}
                async with http.post(f"{running.url}/v1/chat/completions", json=body, headers=talk) as response:
                    await response.read()
                    statuses[response.status] = statuses.get(response.status, 0) + 1

        clients = [asyncio.create_task(client()) for _ in range(6)]
        second = (await tw_policy(running, "add", str(teacher))).split()[-1].rstrip(".")
        for words in (
            ("canary", second, "--share", "50%"),
            ("canary", "--promote"),
            ("rollback",),
            ("promote", second),
        ):
            await tw_policy(running, *words)
            await asyncio.sleep(2.0)
        ended = True
        await asyncio.gather(*clients)
        rows = running.decisions()
    first = next(version for version in PolicyStore(running.state).versions() if version != second)
    assert statuses == {200: len(rows)}
    assert {row["reason"] for row in rows} <= {"policy_student", "policy_teacher"}
    # What decided is what the record names: the two policies' scores have opposite signs.
    assert {(row["policy_version"], row["steps"][0]["score"] > 0) for row in rows} == {(first, False), (second, True)}
    assert {row["policy_role"] for row in rows} == {"serving", "canary"}
    workers = {row["id"].split("_")[1] for row in rows if row["policy_version"] == second}
    assert len(workers) == 2, "both took it up"
