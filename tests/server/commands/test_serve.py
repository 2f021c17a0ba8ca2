"""`tw serve` says what is wrong before it starts anything slow, and `tw key` shows a key once."""

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from server.cli import main


def tw(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_a_dry_run_says_the_budget_back_and_starts_nothing(tmp_path: Path) -> None:
    result = tw("serve", "--dry-run", "--state-dir", str(tmp_path / "state"), "--budget", "At most 100 calls a day.")
    assert result.exit_code == 0, result.output
    assert "At most 100 teacher calls per calendar day." in result.output
    assert "nothing was started" in result.output
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--budget", "sometimes"], 2, "the budget cannot be read"),
        (["--student", "a", "--student-url", "http://x/v1"], 2, "--student and --student-url: give one of them"),
        (["--teacher-url", "http://x/v1"], 2, "a teacher is named but no student"),
        (["--student-url", "nonsense"], 2, "'nonsense' is not an http"),
        (["--port", "99999"], 2, "setting port"),
        (["--host", "0.0.0.0"], 1, "Make one first: tw key new"),
        (["--policy", "/nowhere/policy"], 1, "no such file"),
    ],
)
def test_one_clear_line_for_each_wrong_start(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    base = [] if "--port" in arguments else ["--port", "0"]
    result = tw("serve", "--state-dir", str(tmp_path), *base, *arguments)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = tw("serve", "--state-dir", str(tmp_path), "--port", str(port))
    assert result.exit_code == 1
    assert f"port {port} on 127.0.0.1 cannot be taken" in result.output
    assert "--port" in result.output


def test_weights_without_a_tokenizer_are_named_and_the_other_model_is_stopped(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (weights / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    policy = tmp_path / "policy"
    from policies.artifact import Manifest, save_artifact

    save_artifact(policy, Manifest("always-student", "always-student", "prompt"), {})
    result = tw(
        "serve", "--state-dir", str(tmp_path / "state"), "--port", "0", "--policy", str(policy),
        "--student", str(weights), "--engine", "embedded",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "tokenizer" in result.output


def test_a_key_is_shown_once(tmp_path: Path) -> None:
    state = ["--state-dir", str(tmp_path)]
    made = json.loads(tw("key", "new", "--name", "amy", "--tenant", "acme", "--json", *state).output)
    assert made["key"].startswith("tw-")
    listed = tw("key", "list", "--json", *state).output
    assert made["key"] not in listed
    assert [(row["name"], row["tenant"]) for row in json.loads(listed)] == [("amy", "acme")]
    assert tw("key", "revoke", made["id"], *state).exit_code == 0
    assert tw("key", "revoke", made["id"], *state).exit_code == 1
    assert json.loads(tw("key", "list", "--json", *state).output) == []
