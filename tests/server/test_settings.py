"""Flags beat the environment, which beats the file; what cannot be used is named."""

from pathlib import Path

import pytest

from server.settings import SHIPPED, SettingsError, Upstream, load_settings


def test_without_anything_the_shipped_pair_serves() -> None:
    settings = load_settings()
    assert settings.student.model == str(SHIPPED / "student")
    assert settings.teacher is not None
    assert settings.teacher.model == str(SHIPPED / "teacher")
    assert (settings.host, settings.port, settings.budget) == ("127.0.0.1", 8080, "At most 20% of requests.")


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "tw.toml"
    config.write_text('port = 1\nworkers = 2\nbudget = "file"\n[student]\nurl = "http://s/v1"\n')
    monkeypatch.setenv("TW_PORT", "3")
    monkeypatch.setenv("TW_WORKERS", "4")
    settings = load_settings(config, port=5)
    assert (settings.port, settings.workers, settings.budget) == (5, 4, "file")
    assert settings.student.url == "http://s/v1"
    assert settings.teacher is None, "a student of one's own does not get the shipped teacher"


def test_a_price_alone_keeps_the_shipped_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TW_TEACHER__USD_PER_MILLION_PROMPT_TOKENS", "2.5")
    teacher = load_settings().teacher
    assert teacher == Upstream(model=str(SHIPPED / "teacher"), usd_per_million_prompt_tokens=2.5)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("port = 70000", "setting port in .*less than or equal to 65535"),
        ("prot = 1", "setting prot in .*Extra inputs"),
        ('[student]\nurl = "ftp://x"', "not an http"),
        ('[student]\nurl = "http://user:secret@x/v1"', "put the key into an environment variable"),
        ('[student]\nurl = "http://x/v1"\nmodel = "y"', "student: give either a model to start or a url"),
        ('[teacher]\nurl = "http://x/v1"', "a teacher is named but no student"),
        ("port = ", "not TOML"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, toml: str, message: str) -> None:
    config = tmp_path / "tw.toml"
    config.write_text(toml)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(config)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: no such file"):
        load_settings(tmp_path / "none.toml")
