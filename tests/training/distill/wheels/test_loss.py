"""Path consistency as a loss: worked out by hand, against finite differences, zero where the student is the teacher."""

import math

import pytest
import torch
from torch import Tensor

from training.distill.losses.divergence import known_divergence, top_k_divergence
from training.distill.losses.path_consistency import (
    ask_or_go,
    half_squares,
    known_log_p,
    returns_behind,
    rewards,
    step_errors,
    surer,
    window_errors,
    word_or_ask,
)
from training.distill.wheels.collecting import prices_of
from training.distill.wheels.row import Squares


def test_asking_and_going_on_are_the_greedy_choice_and_sum_to_one() -> None:
    log_ask, log_go = ask_or_go(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(log_ask.exp() + log_go.exp(), torch.ones(2))
    assert (log_ask > log_go).tolist() == [True, False]


def test_words_and_help_share_one_softmax_and_a_banned_help_takes_no_part() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5, 3.0]])
    whole, words = torch.log_softmax(logits, -1), torch.log_softmax(logits[:, :3], -1)
    normaliser = torch.logsumexp(logits[:, :3], -1)
    log_word, log_ask = word_or_ask(logits[:, 1], normaliser, logits[:, 3])
    torch.testing.assert_close((log_word, log_ask), (whole[:, 1], whole[:, 3]))
    torch.testing.assert_close(word_or_ask(logits[:, 1], normaliser, None), (words[:, 1], None))


def test_rewards_are_regret_or_log_probability_and_no_worse_than_the_worst() -> None:
    log_p, best = torch.tensor([-1.0, -0.5, -9.0]), torch.tensor([-0.5, -0.5, -0.5])
    assert rewards(log_p, best, "regret", 6.0).tolist() == [-0.5, 0.0, -6.0]
    assert rewards(log_p, best, "log-probability", 6.0).tolist() == [-1.0, -0.5, -6.0]


def test_a_word_helps_by_how_much_likelier_it_is_right_and_not_by_nats() -> None:
    best, own = torch.tensor([0.6, 0.02, 0.5]).log(), torch.tensor([0.1, 1e-6, 0.5]).log()
    torch.testing.assert_close(surer(own, best), torch.tensor([0.5, 0.02, 0.0]), atol=1e-4, rtol=0)


def test_windows_by_hand() -> None:
    values, gains = torch.tensor([[1.0, 2.0, 4.0, 0.0]]), torch.tensor([[0.5, -1.0, 3.0]])
    yes = torch.ones(1, 3, dtype=torch.bool)
    errors, counts = window_errors(values, gains, torch.tensor([3]), yes, yes, 2)
    assert errors.tolist() == [[-1 + 4 + 0.5 - 1.0, -2 + 0 - 1.0 + 3.0, -4 + 0 + 3.0]]
    assert counts.tolist() == [[True, True, True]]


def test_windows_stop_at_unknown_gains_and_inside_segments_and_at_the_end_of_a_text() -> None:
    values, gains = torch.zeros(1, 5), torch.ones(1, 4)
    decisions = torch.tensor([[True, False, True, True]])
    usable = torch.tensor([[True, True, True, False]])
    _, ones = window_errors(values, gains, torch.tensor([4]), decisions, usable, 1)
    _, twos = window_errors(values, gains, torch.tensor([3]), decisions, usable, 2)
    assert ones.tolist() == [[False, False, True, False]]
    assert twos.tolist() == [[True, False, True, False]]


def test_what_was_earned_behind_a_word_is_the_next_window_s_return_and_behind_the_last_the_end_s() -> None:
    # The second text is cut off after two words: what its rest is worth stands behind the second.
    values = torch.tensor([[1.0, 2.0, 4.0, 0.0], [1.0, 2.0, 5.0, 0.0]])
    gains, length = torch.tensor([[0.5, -1.0, 3.0], [0.5, -1.0, 0.0]]), torch.tensor([3, 2])
    yes = torch.ones(2, 3, dtype=torch.bool)
    unknown = torch.tensor([[True, True, False], [True, True, True]])
    errors, counts = window_errors(values, gains, length, yes, yes, 2)
    found, known = returns_behind(values, errors, counts, length)
    assert found[0].tolist() == [-1.0 + 3.0, 3.0, 0.0]
    assert found[1, :2].tolist() == [-1.0 + 5.0, 5.0]
    assert known.tolist() == [[True, True, True], [True, True, False]]
    # Where a gain is not known, nothing is known of any word before it within the window.
    _, counts = window_errors(values, gains, length, yes, unknown, 2)
    assert returns_behind(values, errors, counts, length)[1][0].tolist() == [False, False, True]


def test_a_steep_price_weighs_less() -> None:
    yes = torch.ones(1, 2, dtype=torch.bool)
    assert half_squares(torch.tensor([[2.0, 2.0]]), yes, torch.tensor([[0.0, 3.0]])) == 2.0 + 0.5


def whole_loss(values: Tensor, words: Tensor, help_logit: Tensor) -> Tensor:
    """Steps of both actions and windows over three states, as the lesson puts them together."""
    log_ask, log_go = ask_or_go(help_logit, words.max(-1).values)
    yes = torch.ones_like(log_go, dtype=torch.bool)
    price = torch.full_like(log_go, 0.7)
    go = step_errors(values[:, :-1], values[:, 1:], torch.tensor([[-0.3, 0.0, -2.0]]).to(values) - log_go)
    ask = step_errors(values[:, :-1], values[:, 1:], -price - log_ask)
    gains = torch.where(torch.tensor([[True, False, True]]), -price - log_ask, -0.4 - log_go)
    window, counts = window_errors(values, gains, torch.tensor([3]), yes, yes, 2)
    return half_squares(go, yes, price) + half_squares(ask, yes, price) + half_squares(window, counts, price)


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    values = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    words = torch.randn(1, 3, 5, dtype=torch.float64, requires_grad=True)
    asks = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(whole_loss, (values, words, asks))


def test_the_optimal_policy_and_its_value_leave_no_error() -> None:
    # One state, then the end: asking earns -price, going on -regret, so V is the soft maximum of the two.
    price, regret = 0.7, 2.0
    value = math.log(math.exp(-price) + math.exp(-regret))
    log_ask, log_go = ask_or_go(torch.tensor([regret - price]), torch.tensor([0.0]))
    zero = torch.zeros(1)
    torch.testing.assert_close(step_errors(torch.tensor([value]), zero, -regret - log_go), zero)
    torch.testing.assert_close(step_errors(torch.tensor([value]), zero, -price - log_ask), zero)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_student_that_is_its_teacher_has_no_error_on_any_text(window: int) -> None:
    torch.manual_seed(1)
    logits, words = torch.randn(2, 4, 7), torch.randint(7, (2, 4))
    log_p = torch.log_softmax(logits, -1).gather(-1, words[..., None]).squeeze(-1)
    log_word, _ = word_or_ask(logits.gather(-1, words[..., None]).squeeze(-1), torch.logsumexp(logits, -1), None)
    yes = torch.ones(2, 4, dtype=torch.bool)
    errors, _ = window_errors(torch.zeros(2, 5), log_p - log_word, torch.tensor([4, 3]), yes, yes, window)
    torch.testing.assert_close(errors, torch.zeros(2, 4), atol=1e-6, rtol=0)


def test_a_word_s_log_probability_is_known_among_the_likeliest_and_bounded_beyond() -> None:
    top_ids = torch.tensor([[5, 3], [5, 3], [5, 3]])
    top_log_p = torch.tensor([[0.6, 0.3], [0.6, 0.3], [0.5, 0.1]]).log()
    found = known_log_p(torch.tensor([3, 7, 7]), top_ids, top_log_p)
    # 7 has at most what is left, 0.1, and at most the least that is known, 0.1.
    torch.testing.assert_close(found.exp(), torch.tensor([0.3, 0.1, 0.1]))


@pytest.mark.parametrize("sharp", [0.5, 3.0])
def test_the_shorter_way_to_the_divergence_gives_the_same_and_its_gradient(sharp: float) -> None:
    torch.manual_seed(2)
    teacher = torch.log_softmax(sharp * torch.randn(6, 40), -1).topk(8, -1)
    logits = (sharp * torch.randn(6, 40)).requires_grad_()
    one = top_k_divergence(logits, teacher.indices, teacher.values, "forward")
    (slope,) = torch.autograd.grad(one.sum(), logits)
    other = known_divergence(logits, torch.logsumexp(logits, -1), teacher.indices, teacher.values)
    (shorter,) = torch.autograd.grad(other.sum(), logits)
    torch.testing.assert_close((other, shorter), (one, slope), atol=1e-4, rtol=1e-3)


def test_a_row_that_gives_what_is_wanted_is_found() -> None:
    torch.manual_seed(0)
    read, row = torch.randn(400, 6), torch.randn(6)
    problem = Squares()
    problem.add(read, read @ row, torch.rand(400))
    torch.testing.assert_close(problem.solution(), row, atol=2e-2, rtol=2e-2)


def test_a_row_follows_the_states_that_count() -> None:
    read = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    problem = Squares()
    problem.add(read, torch.tensor([1.0, 9.0, 3.0]), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(problem.solution(), torch.tensor([1.0, 3.0]), atol=1e-2, rtol=1e-2)


def test_states_in_pieces_give_the_row_that_all_at_once_give() -> None:
    torch.manual_seed(0)
    read, wanted, weight = torch.randn(400, 6), torch.randn(400, 2), torch.rand(400)
    whole, pieces = Squares(), Squares()
    whole.add(read, wanted, weight)
    for start in range(0, 400, 64):
        here = slice(start, start + 64)
        pieces.add(read[here], wanted[here], weight[here])
    assert pieces.solution().shape == (6, 2)
    torch.testing.assert_close(pieces.solution(), whole.solution())


def test_first_prices_are_what_is_lost_where_asking_should_just_pay() -> None:
    # Scores rank the states as their regret does: 1.00, 0.99, .., 0.01.
    regret = torch.arange(100, 0, -1) / 100
    found = prices_of((0.1, 0.5), -torch.arange(100.0), regret)
    assert found.price.tolist() == pytest.approx([0.905, 0.505])
    # Asking more often can not cost more per token.
    backwards = prices_of((0.1, 0.5), -torch.arange(100.0), regret.flip(0))
    assert backwards.price[0] >= backwards.price[1]
