"""Policies are kept by version; one serves; a running gateway takes up another without dropping a request."""

import asyncio
from pathlib import Path

import pytest

from policies.artifact import Manifest, save_artifact
from server.policy_store import Event, PolicyStore, PolicyStoreError, Serving
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


def three(store: PolicyStore, folder: Path) -> list[str]:
    return [store.add(artifact(folder / kind, kind), 0.0) for kind in ("always-student", "always-teacher", "random")]


def test_a_policy_has_one_role_at_a_time(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    a, b, c = three(store, tmp_path / "artifacts")
    with pytest.raises(PolicyStoreError, match="no policy serves yet"):
        store.set_shadow(b, 1.0)
    store.promote(a, 1.0)
    store.set_canary(b, 0.05, 2.0)
    assert store.set_shadow(c, 3.0) == Serving(a, 1.0, (), b, 0.05, c)
    assert store.set_shadow(b, 4.0) == Serving(a, 1.0, (), None, 0.0, b)
    assert store.set_canary(b, 0.5, 5.0) == Serving(a, 1.0, (), b, 0.5, None)
    assert store.promote(b, 6.0) == Serving(b, 6.0, (a,), None, 0.0, None)
    store.set_canary(a, 0.1, 7.0)
    store.set_shadow(c, 8.0)
    assert store.rollback(9.0) == Serving(a, 9.0, (), None, 0.0, c)
    assert [store.serving().role_of(version) for version in (a, b, c)] == ["serving", None, "shadow"]  # type: ignore[union-attr]
    assert store.shadow_off(10.0) == Serving(a, 9.0)
    for off in (store.shadow_off, store.canary_off):
        with pytest.raises(PolicyStoreError, match="there is no"):
            off(11.0)
    with pytest.raises(PolicyStoreError, match="serves already"):
        store.set_canary(a, 0.1, 12.0)
    with pytest.raises(PolicyStoreError, match="above 0% and below 100%"):
        store.set_canary(b, 1.0, 12.0)


def test_the_history_says_what_was_done_when_and_from_where(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    a = store.add(artifact(tmp_path / "first", "always-student"), 1.0)
    b = store.add(artifact(tmp_path / "second", "always-teacher"), 2.0)
    store.add(tmp_path / "second", 3.0)
    store.promote(a, 4.0)
    store.set_canary(b, 0.05, 5.0)
    store.promote(b, 6.0)
    store.rollback(7.0)
    with (tmp_path / "policies" / "history.jsonl").open("a") as file:
        file.write('{"torn')
    assert store.history() == [
        Event(1.0, "added", a, source=str(tmp_path / "first")),
        Event(2.0, "added", b, source=str(tmp_path / "second")),
        Event(4.0, "promoted", a),
        Event(5.0, "canary", b, share=0.05),
        Event(6.0, "promoted", b, instead_of=a),
        Event(7.0, "rolled_back", a, instead_of=b),
    ]


def test_a_pointer_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "serving.json").write_text('{"version": "x", "at": 1.0, "previous": ["y"]}')
    assert store.serving() == Serving("x", 1.0, ("y",))


@pytest.mark.parametrize("version", ["..", "../policies", ".lock", ""])
def test_a_version_names_nothing_outside_the_store(tmp_path: Path, version: str) -> None:
    store = PolicyStore(tmp_path)
    three(store, tmp_path / "artifacts")
    with pytest.raises(PolicyStoreError, match="no policy"):
        store.promote(version, 1.0)


def test_a_policy_damaged_where_it_lies_gets_no_role(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    a, b, _ = three(store, tmp_path / "artifacts")
    store.promote(a, 1.0)
    (store.path(b) / "weights.npz").write_bytes(b"damaged")
    for give in (
        lambda: store.promote(b, 2.0),
        lambda: store.set_shadow(b, 2.0),
        lambda: store.set_canary(b, 0.1, 2.0),
    ):
        with pytest.raises(PolicyStoreError, match="SHA-256"):
            give()
    assert store.serving() == Serving(a, 1.0)


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
