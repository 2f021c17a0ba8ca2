"""Muon on a processor does what torch's does, in float32."""

import copy

import pytest
import torch
from torch import nn

from training.distill.optimizers import Muon, orthogonal

SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_steps_are_those_of_torch_up_to_bfloat16(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(shape))
    theirs = copy.deepcopy(ours)
    mine, reference = Muon([ours], **SETTINGS), torch.optim.Muon([theirs], **SETTINGS)
    start = ours.detach().clone()
    for _ in range(5):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
        # Clipping and logging read it afterwards.
        assert torch.equal(ours.grad, gradient)
    moved = (theirs - start).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.02 * moved


def test_momentum_goes_over_to_torchs_own() -> None:
    weight = nn.Parameter(torch.randn(6, 8))
    mine = Muon([weight], **SETTINGS)
    weight.grad = torch.randn(6, 8)
    mine.step()
    other = torch.optim.Muon([weight], **SETTINGS)
    other.load_state_dict(mine.state_dict())
    other.step()
    assert set(other.state[weight]) == set(mine.state[weight])


def test_singular_values_come_near_one_and_none_is_nan() -> None:
    torch.manual_seed(0)
    told = orthogonal(torch.randn(20, 30), (3.4445, -4.7750, 2.0315), 5, 1e-7)
    assert told.dtype == torch.float32
    values = torch.linalg.svdvals(told)
    assert values.min() > 0.5
    assert values.max() < 1.5
    assert torch.equal(orthogonal(torch.zeros(4, 5), (3.4445, -4.7750, 2.0315), 5, 1e-7), torch.zeros(4, 5))
