"""What is in the states that a ranking puts first, and what a linear map can know of it."""

import pytest

pytest.importorskip("torch")

import torch

from benchmarks.wheels.foresight import captured, mapped


def test_a_ranking_holds_what_lies_in_the_states_that_it_puts_first() -> None:
    gain = torch.tensor([0.0, 0.6, 0.1, 0.3])
    assert captured(gain, gain, 0.5) == pytest.approx(0.9)
    assert captured(gain, -gain, 0.5) == pytest.approx(0.1)
    assert captured(gain, torch.tensor([1.0, 4.0, 3.0, 2.0]), 0.25) == pytest.approx(0.6)


def test_a_linear_map_finds_a_gain_that_is_linear_in_the_state() -> None:
    torch.manual_seed(0)

    def states(count: int) -> dict[str, torch.Tensor]:
        state = torch.randn(count, 3)
        rest = {name: torch.randn(count) for name in ("logit", "log_q", "entropy")}
        return {"state": state, **rest, "gain": state @ torch.tensor([0.5, -1.0, 0.0]) + 0.2 * rest["entropy"]}

    fit, on = states(500), states(50)
    ours, theirs = mapped(fit, on)
    torch.testing.assert_close(ours.float(), fit["gain"], atol=1e-3, rtol=0)
    torch.testing.assert_close(theirs.float(), on["gain"], atol=1e-3, rtol=0)
