"""Progress where there is no terminal: lines for a log file, and silence where they would only be in the way."""

import pytest

from training import bars


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "QUIET_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_log_file_gets_lines_that_say_where_the_work_is(capfd: pytest.CaptureFixture[str]) -> None:
    with bars.stages() as told:
        told.at(1, 2, "before any stage")
        told.stage("teacher")
        told.at(3, 40, "loss 0.5")
        told.stage("asking", 10)
        told.advance(2)
        told.advance(3, "one failed")
    lines = [line.split(" ", 1)[1] for line in capfd.readouterr().err.splitlines()]
    assert lines == ["teacher: 3/40 loss 0.5", "asking: 2/10", "asking: 5/10 one failed"]


def test_short_work_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with bars.stages() as told:
        told.stage("evaluating", 2)
        told.advance(2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("impatient")
def test_one_process_of_several_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    with bars.stages(shown=False) as told:
        told.stage("kd")
        told.at(1, 2)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bars.stages() as told:
        told.stage("wheels")
        told.at(7, 7, "done")
    said = capfd.readouterr().err
    assert "wheels" in said
    assert "7/7" in said
