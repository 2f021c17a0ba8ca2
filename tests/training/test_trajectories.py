import numpy as np
import pytest
import torch

from training import constraint
from training.trajectories import Branch, draw_shares, join, off_policy, relabel, roll_out, spans


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_budgets_are_log_uniform() -> None:
    shares = draw_shares(20_000, 0.01, generator())
    assert shares.min() >= 0.01
    assert shares.max() <= 1.0
    assert shares.log().mean().item() == pytest.approx(np.log(0.1), abs=0.05)


def test_off_policy_holds_every_branch_as_a_part_of_one() -> None:
    episodes = off_policy(torch.tensor([7, 9]), torch.tensor([0.1, 0.5]), two_steps=True)
    assert episodes.row.tolist() == [7, 7, 7, 9, 9, 9]
    assert episodes.branch.tolist() == [0, 1, 2, 0, 1, 2]
    assert episodes.share.tolist() == pytest.approx([0.1, 0.1, 0.1, 0.5, 0.5, 0.5])
    assert episodes.weight.sum().item() == pytest.approx(2.0)
    assert not episodes.on_policy.any()
    one_step = off_policy(torch.tensor([7]), torch.tensor([0.1]), two_steps=False)
    assert one_step.branch.tolist() == [Branch.TEACHER, Branch.KEEP]


def test_roll_outs_follow_the_policy() -> None:
    count = 30_000
    rows, share = torch.arange(count), torch.full((count,), 0.2)
    episodes = roll_out(rows, share, torch.full((count,), 0.2), torch.full((count,), 0.5), generator())
    parts = [(episodes.branch == int(branch)).double().mean().item() for branch in Branch]
    assert parts == pytest.approx([0.2, 0.4, 0.4], abs=0.01)
    assert episodes.on_policy.all()
    sure = roll_out(rows, share, torch.zeros(count), None, generator())
    assert (sure.branch == int(Branch.KEEP)).all()


def test_a_relabelled_episode_keeps_its_branch_and_is_no_longer_on_policy() -> None:
    rows, share = torch.arange(1000), torch.full((1000,), 0.2, dtype=torch.float64)
    episodes = roll_out(rows, share, torch.full((1000,), 0.5), None, generator())
    changed = relabel(episodes, 0.3, 0.01, generator())
    moved = changed.share != 0.2
    assert moved.double().mean().item() == pytest.approx(0.3, abs=0.05)
    assert changed.branch.equal(episodes.branch)
    assert changed.on_policy.equal(~moved)


def test_all_sub_trajectories_of_each_branch() -> None:
    episodes = off_policy(torch.tensor([0]), torch.tensor([0.1]), two_steps=True)
    paths = spans(episodes, two_steps=True)
    found = sorted(
        zip(paths.episode.tolist(), paths.first.tolist(), paths.last.tolist(), paths.ends.tolist(), strict=True)
    )
    assert found == [
        (0, 0, 1, True),  # the teacher at once
        (1, 0, 1, False),  # to the draft
        (1, 0, 2, True),  # all the way
        (1, 1, 2, True),  # from the draft
        (2, 0, 1, False),
        (2, 0, 2, True),
        (2, 1, 2, True),
    ]
    one = spans(off_policy(torch.tensor([0]), torch.tensor([0.1]), two_steps=False), two_steps=False)
    assert (one.first.tolist(), one.last.tolist(), one.ends.tolist()) == ([0, 0], [1, 1], [True, True])


def test_episodes_join() -> None:
    first = off_policy(torch.tensor([0]), torch.tensor([0.1]), two_steps=False)
    assert join(first, first).row.tolist() == [0, 0, 0, 0]


def test_prices_follow_the_error_and_never_rise_with_the_share() -> None:
    budgets = constraint.knots(0.01, 5)
    assert budgets[0] == pytest.approx(0.01)
    assert budgets[-1] == 1.0
    state = constraint.start(budgets, np.array([1.0, 1.0, 1.0, 1.0, 0.0]))
    over = constraint.update(state, budgets + 0.1, constraint.Gains(0.5, 0.1, 0.2))
    # P 0.5 * 0.1 + I (1 + 0.1 * 0.1) + D 0.2 * 0.1
    assert over.price[:4] == pytest.approx([1.08] * 4)
    under = constraint.update(state, np.zeros(5), constraint.Gains(0.5, 0.1, 0.2))
    assert (under.price <= state.price).all()
    assert (np.diff(under.price) <= 0).all()
    assert (under.price >= 0).all()


def test_the_least_falling_sequence_above() -> None:
    assert constraint.falling(np.array([1.0, 3.0, 2.0, 0.0])).tolist() == [3.0, 3.0, 2.0, 0.0]


def test_the_controllers_bring_the_share_to_the_budget() -> None:
    """Requests are worth 0..1 evenly; those above the price ask: the share is 1 - price."""
    budgets = constraint.knots(0.05, 6)
    state = constraint.start(budgets, np.full(6, 0.5))
    for _ in range(400):
        state = constraint.update(state, np.clip(1 - state.price, 0, 1), constraint.Gains())
    assert np.clip(1 - state.price, 0, 1) == pytest.approx(budgets, abs=0.01)
