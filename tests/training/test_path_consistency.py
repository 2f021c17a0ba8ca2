import math

import pytest
import torch

from training.path_consistency import (
    cost_consistency_error,
    path_consistency_error,
    two_action_policy,
    weighted_half_square,
)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_one_step_by_hand() -> None:
    # C = -0.5 + 0 + [1 - 0.3 * 1 - 0.5 * log 0.25] = 0.2 + 0.5 * log 4
    error = path_consistency_error(
        t(0.5), t(0.0), t(1.0)[None], t(1.0)[None], t(math.log(0.25))[None], t(1.0)[None], t(0.3), temperature=0.5
    )
    assert error.tolist() == pytest.approx([0.2 + 0.5 * math.log(4)])


def test_two_steps_with_discount_by_hand() -> None:
    # first step: reward 0, cost 0.1, pi 1/2; second: reward 0.8, cost 1, pi 1/4; the episode goes on worth 0.6.
    error = path_consistency_error(
        t(0.7),
        t(0.6),
        t(0.0, 0.8)[None],
        t(0.1, 1.0)[None],
        t(math.log(0.5), math.log(0.25))[None],
        t(1.0, 1.0)[None],
        t(0.4),
        temperature=0.2,
        discount=0.9,
    )
    first = 0.0 - 0.04 + 0.2 * math.log(2)
    second = 0.8 - 0.4 + 0.2 * math.log(4)
    assert error.tolist() == pytest.approx([-0.7 + 0.81 * 0.6 + first + 0.9 * second])


def test_padding_counts_nothing_and_ends_early() -> None:
    short = path_consistency_error(
        t(0.7), t(0.6), t(0.3)[None], t(1.0)[None], t(-0.2)[None], t(1.0)[None], t(0.4), temperature=0.2, discount=0.9
    )
    padded = path_consistency_error(
        t(0.7),
        t(0.6),
        t(0.3, 99.0)[None],
        t(1.0, 99.0)[None],
        t(-0.2, -99.0)[None],
        t(1.0, 0.0)[None],
        t(0.4),
        temperature=0.2,
        discount=0.9,
    )
    assert padded.tolist() == pytest.approx(short.tolist())


def test_the_reference_term_by_hand() -> None:
    error = path_consistency_error(
        t(0.0),
        t(0.0),
        t(1.0)[None],
        t(0.0)[None],
        t(-0.5)[None],
        t(1.0)[None],
        t(0.0),
        temperature=0.1,
        log_reference=t(-0.7)[None],
        trust=0.3,
    )
    assert error.tolist() == pytest.approx([1.0 + 0.1 * 0.5 - 0.3 * 0.2])


def test_the_optimal_policy_is_consistent_on_every_path() -> None:
    """Two steps, deterministic: staying leads to (keep 0.3, ask 0.9), asking at once gives 0.8; price 0.25."""
    temperature, price = 0.2, t(0.25)
    value_1, log_keep, log_escalate = two_action_policy(t(0.3), t(0.9) - price, temperature)
    value_0, log_stay, log_ask = two_action_policy(value_1, t(0.8) - price, temperature)
    mask = t(1.0, 1.0)[None]

    def error(reward, cost, log_pi, start, end, inside=mask):
        return path_consistency_error(
            start,
            end,
            t(*reward)[None],
            t(*cost)[None],
            torch.stack(log_pi, dim=1),
            inside,
            price,
            temperature=temperature,
        ).item()

    zero = t(0.0)
    once = t(1.0, 0.0)[None]
    assert error((0.8, 0), (1, 0), (log_ask, zero), value_0, zero, once) == pytest.approx(0.0, abs=1e-12)
    assert error((0, 0), (0, 0), (log_stay, zero), value_0, value_1, once) == pytest.approx(0.0, abs=1e-12)
    assert error((0, 0.3), (0, 0), (log_stay, log_keep), value_0, zero) == pytest.approx(0.0, abs=1e-12)
    assert error((0, 0.9), (0, 1), (log_stay, log_escalate), value_0, zero) == pytest.approx(0.0, abs=1e-12)


def test_two_actions_satisfy_the_soft_identity() -> None:
    stay, ask = t(0.3, -40.0, 1e4), t(0.7, 40.0, -1e4)
    value, log_stay, log_ask = two_action_policy(stay, ask, 0.25)
    assert (log_stay.exp() + log_ask.exp()).tolist() == pytest.approx([1, 1, 1])
    assert (value + 0.25 * log_stay)[0].item() == pytest.approx(0.3)
    assert (value + 0.25 * log_ask)[:2].tolist() == pytest.approx([0.7, 40.0])
    assert value[0].item() == pytest.approx(0.25 * math.log(math.exp(0.3 / 0.25) + math.exp(0.7 / 0.25)))


def test_the_cost_critic_by_hand() -> None:
    error = cost_consistency_error(t(0.4), t(0.5), t(0.1, 7.0)[None], t(1.0, 0.0)[None], discount=0.9)
    assert error.tolist() == pytest.approx([-0.4 + 0.45 + 0.1])


def test_the_loss_is_a_weighted_mean_of_half_squares() -> None:
    assert weighted_half_square(t(2.0, 4.0, 9.0), t(1.0, 3.0, 0.0)).item() == pytest.approx((2.0 + 24.0) / 4)
    assert weighted_half_square(t(2.0), t(0.0)).item() == 0.0


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    reward, cost = torch.rand(4, 2, generator=generator, dtype=torch.float64), torch.ones(4, 2, dtype=torch.float64)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    weight = torch.rand(4, generator=generator, dtype=torch.float64)

    def loss(stay, ask, end):
        value, log_stay, log_ask = two_action_policy(stay, ask, 0.3)
        log_pi = torch.stack([log_stay, log_ask], dim=1)
        price = torch.full((4,), 0.2, dtype=torch.float64)
        error = path_consistency_error(value, end, reward, cost, log_pi, mask, price, temperature=0.3, discount=0.95)
        return weighted_half_square(error, weight)

    assert torch.autograd.gradcheck(loss, (draw(4), draw(4), draw(4)))


def test_shapes_are_asserted() -> None:
    with pytest.raises(AssertionError):
        path_consistency_error(
            t(0.0), t(0.0), t(1.0)[None], t(1.0, 2.0)[None], t(0.0)[None], t(1.0)[None], t(0.0), temperature=1.0
        )
