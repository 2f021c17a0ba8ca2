"""How a student that was trained to ask is served is read from beside its weights; what is said is stronger."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from server.cli import main
from server.settings import Settings, SettingsError, load_settings

TOLD = {
    "token": "<ask>", "token_id": 4096, "segment": 4, "levels": [0.05, 0.125, 0.5], "separator": "\n", "by": "student",
    "phrasings": ["Ask for at most {share} of the tokens.", "Help budget: {share}."], "held_out": ["No {share}."],
    "offsets": {"0.05": 0.1},
}  # fmt: skip


def student(folder: Path, **changes: Any) -> str:
    told = {name: value for name, value in (TOLD | changes).items() if value is not None}
    (folder / "wheels.json").write_text(json.dumps(told))
    return str(folder)


def served(folder: Path, **more: Any) -> Settings:
    return load_settings(student={"model": str(folder)}, teacher={"model": "t"}, **more)


def test_it_is_served_as_it_was_trained(tmp_path: Path) -> None:
    student(tmp_path)
    found = served(tmp_path).help
    assert (found.by, found.token, found.token_id, found.tokens) == ("student", "<ask>", 4096, 4)
    assert found.restriction == "Ask for at most {percent}% of the tokens.\n{prompt}"
    assert found.levels == (5, 50), "a sentence says whole per cents"
    assert found.max_segments * found.tokens == 1024


def test_who_asks_better_asks(tmp_path: Path) -> None:
    student(tmp_path, by="policy")
    found = served(tmp_path).help
    assert (found.by, found.token_id) == ("policy", 4096), "watched, and kept from its token"
    student(tmp_path, by=None)
    assert served(tmp_path).help.by == "student", "files that were written before say nothing of it"


def test_what_is_said_is_stronger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student(tmp_path)
    monkeypatch.setenv("TW_HELP__TOKENS", "2")
    config = tmp_path / "tw.toml"
    config.write_text("[help]\nmax_segments = 3\ntokens = 9\n")
    found = load_settings(config, student={"model": str(tmp_path)}, teacher={"model": "t"}, help={"by": "policy"}).help
    assert (found.by, found.tokens, found.max_segments, found.retry_tokens) == ("policy", 2, 3, 8)
    assert served(tmp_path, help={"by": "off"}).help.token_id is None


def test_without_a_teacher_or_a_file_nothing_is_assumed(tmp_path: Path) -> None:
    assert served(tmp_path).help.by == "off"
    student(tmp_path)
    assert load_settings(student={"model": str(tmp_path)}).help.by == "off"
    assert load_settings(student={"url": "http://s/v1"}, teacher={"url": "http://t/v1"}).help.by == "off"


@pytest.mark.parametrize("more", [[], ["--teacher", "t", "--help-by", "off"]])
def test_a_student_that_nobody_answers_is_warned_of(tmp_path: Path, more: list[str]) -> None:
    said = ["serve", "--student", student(tmp_path), "--state-dir", str(tmp_path / "state"), "--dry-run", *more]
    result = CliRunner().invoke(main, said)
    assert result.exit_code == 0, result.output
    assert "trained to ask for help and nobody will answer it" in result.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_id": "many"}, r"wheels\.json: token_id: .*valid integer"),
        ({"segment": None}, r"wheels\.json: segment: Field required"),
        ({"by": "nobody"}, r"wheels\.json: by: .*'student' or 'policy'"),
        ({"phrasings": ["no place for it"]}, r"wheels\.json: phrasings"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    student(tmp_path, **changes)
    with pytest.raises(SettingsError, match=message) as caught:
        served(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "wheels.json").write_text("{")
    with pytest.raises(SettingsError, match=r"wheels\.json: Invalid JSON.*remove it"):
        served(tmp_path)
