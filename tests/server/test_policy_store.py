"""Policies are kept by version; one serves; a running gateway takes up another without dropping a request."""

import asyncio
from pathlib import Path

import pytest

from policies.artifact import Manifest, save_artifact
from server.policy_store import PolicyStore, PolicyStoreError
from tests.server.gateways import running_gateway
from tests.upstreams import scripted_pair


def artifact(path: Path, kind: str) -> Path:
    save_artifact(path, Manifest(kind, kind, "prompt"), {})
    return path


def test_promote_and_roll_back(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "state")
    first = store.add(artifact(tmp_path / "a", "always-student"))
    second = store.add(artifact(tmp_path / "b", "always-teacher"))
    assert store.serving() is None
    assert store.promote(first, 1.0).version == first
    assert store.promote(second, 2.0).previous == (first,)
    assert store.promote(second, 3.0).at == 2.0, "promoting what serves changes nothing"
    assert sorted(store.versions()) == sorted([first, second])
    assert store.rollback(4.0).version == first
    with pytest.raises(PolicyStoreError, match="no earlier policy"):
        store.rollback(5.0)


def test_what_is_no_policy_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "state")
    with pytest.raises(PolicyStoreError, match=r"manifest\.json: no such file"):
        store.add(tmp_path / "nowhere")
    damaged = artifact(tmp_path / "a", "always-student")
    (damaged / "weights.npz").write_bytes(b"damaged")
    with pytest.raises(PolicyStoreError, match="SHA-256"):
        store.add(damaged)
    with pytest.raises(PolicyStoreError, match="no policy 'x' is kept here; known: none"):
        store.promote("x", 1.0)
    assert store.versions() == []
    assert list((tmp_path / "state").rglob(".incoming-*")) == []


async def test_a_running_gateway_takes_up_a_promoted_policy(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    async with (
        scripted_pair() as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, budget="At most 100% of requests.") as gateway,
    ):
        assert (await gateway.chat("hi"))[1]["x-tw-route"] == "student"
        version = store.add(artifact(tmp_path / "b", "always-teacher"))
        store.promote(version, 1.0)
        statuses, routes = set(), []
        for _ in range(60):
            status, headers, _ = await gateway.chat("hi")
            statuses.add(status)
            routes.append(headers["x-tw-route"])
            if routes[-1] == "teacher":
                break
            await asyncio.sleep(0.1)
        _, headers, _ = await gateway.chat("hi")
        record = await gateway.record(headers)
    assert statuses == {200}
    assert routes[-1] == "teacher"
    assert (record["policy"], record["policy_version"]) == ("always-teacher", version)
