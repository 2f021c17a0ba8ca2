"""Where projections start, and what is taken off the teacher's states."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.distill.conftest import config_of, surroundings
from tests.training.distill.pairs import llama, settings
from training.distill.config import FeaturesConfig
from training.distill.features import FeatureTerm, Linear, LowRank, Moments
from training.distill.run import distil


def states(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def moments(s: torch.Tensor, t: torch.Tensor) -> Moments:
    found = Moments(s.shape[1], t.shape[1])
    for start in range(0, len(s), 30):
        found.add(s[start : start + 30], t[start : start + 30])
    return found


def test_an_affine_map_between_two_models_is_found() -> None:
    s, matrix, constant = states(200, 5) + 3.0, states(5, 7, 1), states(1, 7, 2)[0]
    t = s @ matrix + constant
    weight, bias = moments(s, t).fitted(True, rigid=False, ridge=0.0)
    torch.testing.assert_close(weight, matrix, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(s @ weight + bias, t - t.mean(0), atol=1e-3, rtol=1e-3)
    weight, bias = moments(s, s @ matrix).fitted(False, rigid=False, ridge=0.0)
    torch.testing.assert_close((weight, bias), (matrix, torch.zeros(7)), atol=1e-4, rtol=1e-4)


def test_a_rotation_and_a_scale_are_found_and_nothing_else_is_fitted() -> None:
    rotation = torch.linalg.qr(states(5, 5, 1)).Q
    s = states(200, 5) + 3.0
    weight, _ = moments(s, 26.0 * s @ rotation).fitted(True, rigid=True)
    torch.testing.assert_close(weight, 26.0 * rotation, atol=1e-3, rtol=1e-3)
    s, t = states(200, 4), states(200, 6, 1)
    weight, bias = moments(s, t).fitted(True, rigid=True)
    gram = weight @ weight.T
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(4), atol=1e-4, rtol=1e-4)
    length = (s @ weight + bias).square().sum(-1).mean()
    torch.testing.assert_close(length, (t - t.mean(0)).square().sum(-1).mean(), atol=1e-3, rtol=1e-3)


def test_a_low_rank_projection_starts_at_the_best_map_of_its_rank() -> None:
    thin = states(8, 2, 1) @ states(2, 6, 2)
    s = states(300, 8)
    one = LowRank(8, 6, 2, torch.Generator().manual_seed(0), constant=True)
    one.start_from(*moments(s, s @ thin).fitted(True, rigid=False, ridge=0.0))
    torch.testing.assert_close(one.down @ one.up, thin, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("centred", [True, False])
def test_what_all_tokens_share_is_taken_off_or_kept(centred: bool) -> None:
    term = FeatureTerm(llama(320, hidden=16), llama(320, hidden=24), FeaturesConfig(centred=centred), seed=0)
    s, t = states(100, 16), states(100, 24, 1) + 5.0
    term.fit([moments(s, t)])
    torch.testing.assert_close(term.centres[0], t.mean(0) if centred else torch.zeros(24))
    assert (term.projections[0].bias is not None) == centred


def test_orthogonal_starts_stay_as_they_are_drawn() -> None:
    config = FeaturesConfig(start="orthogonal", projection="orthogonal")
    term = FeatureTerm(llama(320, hidden=16), llama(320, hidden=24), config, seed=0)
    before = term.projections[0].weight.clone()
    term.fit([moments(states(100, 16), states(100, 24, 1))])
    torch.testing.assert_close(term.projections[0].weight, before)
    assert not term.projections[0].weight.requires_grad
    same = Linear(4, 4, torch.Generator(), frozen=True, constant=False)
    torch.testing.assert_close(same.weight.detach(), torch.eye(4))


def first_loss(folder: Path, name: str, **features: Any) -> float:
    value = settings(folder, out=str(folder / name), features={"kind": "mse", **features}, training={"steps": 1})
    report = distil(config_of(value), "features", surroundings(), lambda _name: None)
    assert set(load_file(folder / name / "kd/checkpoints/step-00000001/lesson.safetensors")) > {"features.centres"}
    return next(row["features"] for row in report["stages"]["kd"]["curves"] if "features" in row)


def test_a_run_begins_with_fitted_states(folder: Path) -> None:
    fitted = first_loss(folder, "fitted")
    assert fitted < first_loss(folder, "rotated", projection="orthogonal")
    assert fitted < 0.9 * first_loss(folder, "drawn", start="orthogonal")
