"""A policy with an encoder and samples, in a process of its own: loaded before it is asked, and refused in one line."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from policies.action import Step
from policies.artifact import load_policy
from policies.samples import SampleWish
from policies.sentences import encoder_sha256
from server.scoring.process import ProcessScorer
from server.scoring.scorer import ScoringFailed
from tests.policies.encoders import tiny_encoder
from tests.policies.test_samples import sampled, write_sampled
from tests.training.tables import sums
from training.cli import train
from training.evaluate import observations


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    write_sampled(folder / "sums.jsonl", sampled(sums(180)))
    encoder = tiny_encoder(folder / "encoder")
    arguments = ["policy", "--outcomes", str(folder / "sums.jsonl"), "--out", str(folder / "policy"), "--steps", "3"]
    done = CliRunner().invoke(train, [*arguments, "--samples", "3", "--encoder", str(encoder), "--encoder-size", "2"])
    assert done.exit_code == 0, done.output
    return folder / "policy"


@pytest.fixture(autouse=True)
def _time_to_import_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr("server.scoring.process.START_WITHIN_S", 300.0)


async def test_the_process_scores_as_training_would(trained: Path) -> None:
    policy = load_policy(trained)
    looks = observations(sampled(sums(5, seed=2)), Step.DEFER, 0.2)
    looks += [replace(each, draft=replace(each.draft, samples=())) for each in looks if each.draft is not None]
    scorer = await ProcessScorer.start(trained, deadline_s=20.0)
    try:
        assert scorer.samples == SampleWish(3, 64)
        assert [(await scorer.score(each)).score for each in looks] == [policy.score(each).score for each in looks]
        # Many requests at once must not make the first wait until the policy counts as hanging.
        assert scorer._beside.line is not None
        before = scorer._beside.line.answered
        await asyncio.gather(*(scorer.score(looks[i % len(looks)]) for i in range(30)))
        assert scorer._beside.line.answered - before >= 4
    finally:
        await scorer.close()


async def test_a_process_without_the_encoder_says_so(trained: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TW_ENCODER", str(tmp_path / "nowhere"))
    with pytest.raises(ScoringFailed, match="nowhere: no such directory; the policy's sentence encoder is looked for"):
        await ProcessScorer.start(trained, deadline_s=5.0)


async def test_an_encoder_that_cannot_be_loaded_stops_the_start(trained: Path, tmp_path: Path, monkeypatch) -> None:
    """Its files are the right ones by name and hash; what is in them is found out before anybody is answered."""
    manifest = json.loads((trained / "manifest.json").read_text())
    broken = shutil.copytree(manifest["encoder"]["name"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    policy = shutil.copytree(trained, tmp_path / "policy")
    manifest["encoder"]["sha256"] = encoder_sha256(broken)
    (policy / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("TW_ENCODER", str(broken))
    with pytest.raises(ScoringFailed, match="the sentence encoder cannot be loaded"):
        await ProcessScorer.start(policy, deadline_s=5.0)
