"""What docs/commands.md says about the shell: Tab knows the verbs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import PAGE

TW = Path(sys.executable).with_name("tw")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_completion_script_is_one_for_that_shell(shell: str) -> None:
    assert f"{shell}_source" in PAGE.read_text()
    env = {**os.environ, "_TW_COMPLETE": f"{shell}_source"}
    script = subprocess.run([TW], env=env, capture_output=True, text=True, check=True).stdout
    assert f"_TW_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(("words", "at", "expected"), [("tw bud", 1, "budget"), ("tw distill wh", 2, "wheels")])
def test_tab_completes_verbs_also_those_loaded_when_used(words: str, at: int, expected: str) -> None:
    env = {**os.environ, "_TW_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    said = subprocess.run([TW], env=env, capture_output=True, text=True, check=True).stdout
    assert [line.split(",")[1] for line in said.split()] == [expected]
