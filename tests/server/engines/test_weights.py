"""Model directories that cannot be served, each with one clear line; in a process, exit status 1."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.engines import UnusableWeights
from server.engines.weights import check_directory, weight_bytes


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def complaint(model: Path | str) -> str:
    with pytest.raises(UnusableWeights) as refusal:
        check_directory(str(model))
    return str(refusal.value)


def test_a_whole_directory_and_a_name_pass(model):
    check_directory(str(model))
    check_directory("Qwen/Qwen3-0.6B")
    assert weight_bytes(str(model)) == (model / "model.safetensors").stat().st_size
    assert weight_bytes("Qwen/Qwen3-0.6B") is None


def test_not_a_directory(tmp_path):
    assert complaint(tmp_path / "nothing").endswith(
        "nothing is not a directory; give a model directory or a name on the hub"
    )
    assert "it has no config.json" in complaint(tmp_path)


def test_without_a_tokenizer(model):
    (model / "tokenizer.json").unlink()
    assert "has weights but no tokenizer (tokenizer.json is missing)" in complaint(model)


def test_without_weights(model):
    (model / "model.safetensors").unlink()
    assert "has no weights" in complaint(model)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_config_that_is_none(model, text):
    (model / "config.json").write_text(text)
    assert re.search("is not JSON|names no model_type", complaint(model))


def test_weights_cut_short(model):
    path = model / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    assert re.search(r"has [\d,]+ bytes where its header promises [\d,]+; copy the model again", complaint(model))
    path.write_bytes(data[:20])
    assert "cut short or not a safetensors file" in complaint(model)
    path.write_bytes(b"")
    assert "cut short" in complaint(model)


def test_weights_with_a_broken_header(model):
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[8:12] = b"\xff{}x"
    path.write_bytes(data)
    assert "has a broken header" in complaint(model)


def run_engine(model: Path, port: int = 0) -> tuple[int, str, float]:
    command = [sys.executable, "-P", "-m", "server.engines.embedded", "--model", str(model), "--port", str(port)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr, time.monotonic() - began


def test_the_engine_says_it_in_one_line_before_it_loads_anything(model):
    (model / "tokenizer.json").unlink()
    status, said, _ = run_engine(model)
    assert status == 1
    assert said.startswith(f"error: {model} has weights but no tokenizer")
    assert said.count("\n") == 1


def test_a_taken_port(model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said, _ = run_engine(model, port)
    assert status == 1
    assert said.startswith(f"error: port {port} on 127.0.0.1 is taken (Address already in use); stop what listens")


def test_weights_that_do_not_fit_the_config(model):
    from server.engines.embedded.loading import load

    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UnusableWeights, match=r"the weights of .* lack 9 tensors \(model\.layers\.2\."):
        load(str(model))
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 500}))
    with pytest.raises(UnusableWeights, match=r"cannot load .*model: "):
        load(str(model))
    (model / "config.json").write_text(json.dumps({**config, "model_type": "no-such-type"}))
    with pytest.raises(UnusableWeights, match=r"cannot load .*no-such-type"):
        load(str(model))


def test_a_tokenizer_that_is_rubbish(model):
    from server.engines.embedded.loading import load

    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(UnusableWeights, match=r"cannot load .*model: "):
        load(str(model))


def test_more_context_than_the_model_has(model):
    from server.engines.embedded.loading import load

    with pytest.raises(UnusableWeights, match="holds 256 tokens; --max-model-len 300 is more than that"):
        load(str(model), max_model_len=300)
    assert load(str(model), max_model_len=64).runner.context == 64
