"""`tw policy`: what it says, where it refuses, and with which exit code."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from policies.artifact import Manifest, save_artifact
from server.cli import main
from server.policy_store import PolicyStore
from server.served_models import ServedModels


def tw(state: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["policy", words[0], "--state-dir", str(state), *words[1:]])


def saved(folder: Path, kind: str, **manifest: str) -> Path:
    save_artifact(folder / kind, Manifest(kind, kind, "prompt", **manifest), {})  # type: ignore[arg-type]
    return folder / kind


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def served(tmp_path: Path, state: Path) -> tuple[str, str]:
    """(the version that serves, another one that is kept)"""
    store = PolicyStore(state)
    first, second = (store.add(saved(tmp_path, kind), 5.0) for kind in ("always-student", "always-teacher"))
    store.promote(first, 6.0)
    return first, second


def test_add_and_promote_and_list_and_roll_back(tmp_path: Path, state: Path) -> None:
    first, second = saved(tmp_path, "always-student"), saved(tmp_path, "always-teacher")
    version = json.loads(tw(state, "add", str(first), "--json").stdout)["version"]
    assert tw(state, "list").exit_code == 0
    assert tw(state, "promote", version).stdout == f"Serving {version}.\n"
    other = json.loads(tw(state, "promote", str(second), "--json").stdout)["serving"]
    rows = {row["version"]: row for row in json.loads(tw(state, "list", "--json").stdout)}
    assert {key: (row["role"], row["source"], row["instead_of"]) for key, row in rows.items()} == {
        version: (None, str(first), None),
        other: ("serving", str(second), version),
    }
    assert tw(state, "rollback").stdout == f"Serving {version}.\n"
    shown = json.loads(tw(state, "show", version).stdout)
    assert shown["version"] == version
    assert [each["event"] for each in shown["history"]] == ["added", "promoted", "rolled_back"]


def test_a_shadow_and_a_canary_come_and_go(state: Path, served: tuple[str, str]) -> None:
    first, second = served
    assert tw(state, "shadow", second).stdout == f"Serving {first}.\nShadow {second} looks on.\n"
    done = tw(state, "canary", second, "--share", "5%")
    assert done.stdout == f"Serving {first}.\nCanary {second} decides 0.05 of the conversations.\n"
    assert json.loads(tw(state, "canary", "--off", "--json").stdout) == {
        "serving": first, "canary": None, "canary_share": 0.0, "shadow": None,
    }  # fmt: skip
    assert tw(state, "canary", second, "--share", "0.25").exit_code == 0
    assert tw(state, "canary", "--promote").stdout == f"Serving {second}.\n"
    assert tw(state, "shadow", first).exit_code == 0
    assert tw(state, "shadow", "--off").stdout == f"Serving {second}.\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("promote", "nope"), 1, "no policy 'nope' is kept here; known: "),
        (("rollback",), 1, "there is no earlier policy to go back to"),
        (("shadow", "--off"), 1, "there is no shadow"),
        (("canary", "--promote"), 1, "there is no canary"),
        (("canary", "--off"), 1, "there is no canary"),
        (("add", "nowhere"), 1, "manifest.json: no such file"),
        (("shadow",), 2, "give one of VERSION_OR_DIR, --off"),
        (("canary", "x", "--off"), 2, "give one of"),
        (("canary", "x"), 2, "--share is needed"),
        (("canary", "x", "--share", "a lot"), 2, "write it like 5% or 0.05"),
        (("canary", "x", "--share", "100%"), 2, "above 0% and below 100%"),
        (("canary", "x", "--share", "nan"), 2, "above 0% and below 100%"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(
    state: Path, served: tuple[str, str], words: tuple[str, ...], code: int, said: str
) -> None:
    done = tw(state, *words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_newer_and_a_damaged_artifact_are_refused_in_one_sentence(tmp_path: Path, state: Path) -> None:
    newer, damaged = saved(tmp_path, "always-student"), saved(tmp_path, "always-teacher")
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    (damaged / "weights.npz").write_bytes(b"damaged")
    for words in (("add",), ("promote",), ("shadow",), ("canary", "--share", "5%")):
        for path, said in ((newer, "format version 99"), (damaged, "SHA-256")):
            done = tw(state, *words, str(path))
            assert done.exit_code == 1
            (line,) = done.stderr.splitlines()
            assert line.startswith("tw policy: ")
            assert said in line
    assert PolicyStore(state).versions() == []


def test_a_policy_trained_for_other_models_is_promoted_with_a_warning(tmp_path: Path, state: Path) -> None:
    state.mkdir()
    started = ServedModels({"student": ["Qwen/Qwen3-0.6B"], "teacher": ["/models/Qwen3-8B/"]})
    started.write(state, managed=started)
    right = saved(tmp_path, "always-student", student_model="qwen3-0.6b", teacher_model="Qwen/Qwen3-8B")
    wrong = saved(tmp_path, "always-teacher", student_model="Qwen3-0.6B", teacher_model="gpt-4")
    assert tw(state, "promote", str(right)).stderr == ""
    done = tw(state, "promote", str(wrong))
    assert done.exit_code == 0
    (line,) = done.stderr.splitlines()
    assert "trained for the teacher gpt-4, and /models/Qwen3-8B/ is served" in line


def test_where_nobody_knows_the_models_nothing_is_warned_about(tmp_path: Path) -> None:
    assert ServedModels.read(tmp_path).warnings({"student_model": "a", "teacher_model": "b"}) == []
    (tmp_path / "served.json").write_text("[]")
    assert ServedModels.read(tmp_path).names == {"student": (), "teacher": ()}
    assert ServedModels({"student": ["a"]}).warnings({"student_model": None}) == []
