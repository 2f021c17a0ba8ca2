"""What usually goes wrong in distillation losses: each loss against numbers worked out by hand, against finite
differences, and at teacher == student."""

import math

import pytest
import torch

from training.distill.losses.blocks import Head, by_blocks
from training.distill.losses.divergence import (
    SEPARABLE,
    divergence,
    forward_divergence,
    log_probabilities,
    slopes,
    terms,
    top_k_divergence,
)
from training.distill.losses.features import alignment, centred_cosine, directions, linear_cka
from training.distill.losses.preference import imitation, preference, sequence_sums
from training.distill.losses.ranking import order_agreement, ranking_loss, soft_ranks, spearman, union_of_top_k
from training.distill.losses.vocabulary import vocabulary_divergence

KINDS = (*SEPARABLE, "adaptive")


def logits(*shape: int, seed: int = 0, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) * spread


def finite_differences(function, at: torch.Tensor, step: float = 1e-2) -> torch.Tensor:
    """Central differences of a scalar function; float32 is computed inside, so the step is coarse."""
    found = torch.zeros_like(at)
    for index in range(at.numel()):
        change = torch.zeros_like(at).view(-1)
        change[index] = step
        change = change.view_as(at)
        found.view(-1)[index] = (function(at + change) - function(at - change)) / (2 * step)
    return found


def test_forward_kl_is_what_a_hand_works_out() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
    by_hand = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert divergence(p.log(), q.log(), "forward").item() == pytest.approx(by_hand)
    assert divergence(p.log(), q.log(), "reverse").item() == pytest.approx(by_hand)
    assert divergence(p.log(), q.log(), "tvd").item() == pytest.approx(0.25)


def test_js_with_one_half_is_symmetric_and_bounded() -> None:
    p, q = log_probabilities(logits(5, 7, spread=6)), log_probabilities(logits(5, 7, seed=1, spread=6))
    one, other = divergence(p, q, "js", 0.5), divergence(q, p, "js", 0.5)
    torch.testing.assert_close(one, other)
    assert one.max() <= math.log(2)


def test_skew_is_kl_to_the_mixture() -> None:
    p, q = log_probabilities(logits(4, 6)), log_probabilities(logits(4, 6, seed=1))
    mixed = (0.3 * p.exp() + 0.7 * q.exp()).log()
    torch.testing.assert_close(divergence(p, q, "skew", 0.3), divergence(p, mixed, "forward"))
    mixed = (0.7 * p.exp() + 0.3 * q.exp()).log()
    torch.testing.assert_close(divergence(p, q, "skew-reverse", 0.3), divergence(mixed, q, "reverse"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(kind: str) -> None:
    same = logits(6, 9).requires_grad_()
    value = divergence(log_probabilities(same.detach()), log_probabilities(same), kind)  # type: ignore[arg-type]
    torch.testing.assert_close(value, torch.zeros(6), atol=1e-6, rtol=0)
    value.sum().backward()
    torch.testing.assert_close(same.grad, torch.zeros(6, 9), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "adaptive"])
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    teacher, student = log_probabilities(logits(3, 5), 1.5), logits(3, 5, seed=1)

    def value(z: torch.Tensor) -> torch.Tensor:
        return divergence(teacher, log_probabilities(z, 1.5), kind, 0.3).sum()  # type: ignore[arg-type]

    at = student.clone().requires_grad_()
    value(at).backward()
    torch.testing.assert_close(at.grad, finite_differences(value, student), atol=3e-3, rtol=3e-2)


@pytest.mark.parametrize("kind", SEPARABLE)
def test_written_out_slopes_are_those_of_autograd(kind: str) -> None:
    log_p = log_probabilities(logits(3, 8))
    log_q = log_probabilities(logits(3, 8, seed=1)).requires_grad_()
    terms(log_p, log_q, kind, 0.3).sum().backward()  # type: ignore[arg-type]
    torch.testing.assert_close(log_q.grad, slopes(log_p, log_q.detach(), kind, 0.3))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_logits_in_bfloat16_give_no_nan(kind: str) -> None:
    teacher = torch.tensor([[1e4, -1e4, 0.0, float("-inf")]], dtype=torch.bfloat16)
    student = torch.tensor([[-1e4, 1e4, 3e38, float("-inf")]], dtype=torch.bfloat16).requires_grad_()
    value = divergence(log_probabilities(teacher), log_probabilities(student), kind)  # type: ignore[arg-type]
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_the_short_way_to_forward_kl_gives_its_values_and_gradients() -> None:
    teacher, student = logits(5, 7), logits(5, 7, seed=1)
    # A word that both rule out, and one that the student alone does.
    teacher[0, 2] = student[0, 2] = student[1, 3] = -math.inf
    scale = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])
    for temperature in (1.0, 2.0):
        one, other = student.clone().requires_grad_(), student.clone().requires_grad_()
        short = forward_divergence(teacher, one, temperature)
        long = divergence(log_probabilities(teacher, temperature), log_probabilities(other, temperature), "forward")
        torch.testing.assert_close(short, long, atol=1e-4, rtol=1e-4)
        (scale * short).sum().backward()
        (scale * long).sum().backward()
        rows = torch.tensor([0, 2, 3, 4])
        torch.testing.assert_close(one.grad[rows], other.grad[rows], atol=1e-5, rtol=1e-4)
        assert torch.isfinite(one.grad).all()


# --- logits that never exist at once ---------------------------------------------------------------------------------


def heads(vocabulary: int = 11, rows: int = 13) -> tuple[torch.Tensor, Head, torch.Tensor, Head]:
    """7 tokens, a student of width 4 and a teacher of width 6, both padded beyond the shared vocabulary."""
    student, teacher = logits(7, 4), logits(7, 6, seed=1)
    return (
        student.requires_grad_(),
        Head(logits(rows, 4, seed=2).requires_grad_(), None, vocabulary),
        teacher,
        Head(logits(rows + 2, 6, seed=3), None, vocabulary),
    )


@pytest.mark.parametrize("words", [3, 11, 100])
@pytest.mark.parametrize("kind", SEPARABLE)
def test_blocks_of_words_give_the_plain_loss_and_gradient(kind: str, words: int) -> None:
    s, head, t, teacher_head = heads()
    plain = divergence(
        log_probabilities(teacher_head.logits(t), 2.0), log_probabilities(head.logits(s), 2.0), kind, 0.3  # type: ignore[arg-type]
    )  # fmt: skip
    wanted = torch.autograd.grad(plain.sum() * 0.7, [s, head.weight])
    total, values = vocabulary_divergence(
        s, head, t, teacher_head, kind=kind, skew=0.3, temperature=2.0, words=words, tokens=3  # type: ignore[arg-type]
    )  # fmt: skip
    found = torch.autograd.grad(total * 0.7, [s, head.weight])
    torch.testing.assert_close(values, plain.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)
    assert not values.requires_grad


def test_blocks_of_tokens_give_the_plain_loss_and_gradient() -> None:
    s, head, t, teacher_head = heads()

    def loss(ours, theirs, at):
        del at
        return {"kl": divergence(log_probabilities(theirs), log_probabilities(ours), "adaptive")}

    whole = by_blocks(s, head, t, teacher_head, loss, 100)["kl"]
    wanted = torch.autograd.grad(whole.sum(), [s, head.weight])
    parts = by_blocks(s, head, t, teacher_head, loss, 2)["kl"]
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), [s, head.weight]), wanted)


def test_a_softcapped_head_cannot_run_by_words() -> None:
    s, head, t, teacher_head = heads()
    with pytest.raises(ValueError, match="soft-capped"):
        vocabulary_divergence(s, Head(head.weight, None, 11, softcap=30.0), t, teacher_head, kind="forward")


# --- top k and a tail -------------------------------------------------------------------------------------------------


def test_all_words_in_the_top_k_is_the_whole_divergence() -> None:
    student, log_p = logits(5, 6), log_probabilities(logits(5, 6, seed=1))
    values, ids = log_p.topk(5, -1)
    found = top_k_divergence(student, ids, values, "forward")
    torch.testing.assert_close(found, divergence(log_p, log_probabilities(student), "forward"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["forward", "reverse", "js", "skew", "tvd"])
def test_the_tail_in_one_bucket_is_a_lower_bound_and_zero_at_the_teacher(kind: str) -> None:
    own = logits(8, 40)
    log_p, student = log_probabilities(own), logits(8, 40, seed=1)
    values, ids = log_p.topk(5, -1)
    found = top_k_divergence(student, ids, values, kind, 0.3)  # type: ignore[arg-type]
    whole = divergence(log_p, log_probabilities(student), kind, 0.3)  # type: ignore[arg-type]
    assert (found <= whole + 1e-5).all()
    torch.testing.assert_close(
        top_k_divergence(own, ids, values, kind, 0.3), torch.zeros(8), atol=1e-5, rtol=0  # type: ignore[arg-type]
    )  # fmt: skip


def test_top_k_gradients_agree_with_finite_differences() -> None:
    values, ids = log_probabilities(logits(2, 7, seed=1)).topk(3, -1)
    student = logits(2, 7)

    def value(z: torch.Tensor) -> torch.Tensor:
        return top_k_divergence(z, ids, values, "reverse").sum()

    at = student.clone().requires_grad_()
    value(at).backward()
    torch.testing.assert_close(at.grad, finite_differences(value, student), atol=3e-3, rtol=3e-2)


# --- ranking ----------------------------------------------------------------------------------------------------------


def test_soft_ranks_become_ranks_when_cold() -> None:
    values, mask = torch.tensor([[0.1, 0.7, 0.2, 9.0]]), torch.tensor([[True, True, True, False]])
    torch.testing.assert_close(soft_ranks(values, mask, 1e-3), torch.tensor([[3.0, 1.0, 2.0, 0.0]]))


def test_soft_ranks_have_a_gradient_where_gaps_are_wide() -> None:
    values = torch.tensor([[3.0, 0.0, -3.0]], requires_grad=True)
    ranks = soft_ranks(values, torch.ones(1, 3, dtype=torch.bool), 1.0)
    assert torch.autograd.grad(ranks[0, 0], values)[0].abs().min() > 0


def test_spearman_by_hand() -> None:
    mask = torch.ones(3, 3, dtype=torch.bool)
    left = torch.tensor([[1.0, 2.0, 3.0]] * 3)
    right = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    torch.testing.assert_close(spearman(left, right, mask), torch.tensor([1.0, -1.0, 0.5]))


def test_the_union_is_made_per_token_and_holds_each_word_once() -> None:
    teacher = torch.tensor([[5.0, 4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 4.0, 5.0]])
    student = torch.tensor([[4.0, 0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0, 4.0]])
    ids, mask = union_of_top_k(teacher, student, 2)
    assert [sorted(row[m].tolist()) for row, m in zip(ids, mask, strict=True)] == [[0, 1, 2], [3, 4]]


def test_ranking_loss_is_zero_at_the_teacher_and_largest_when_reversed() -> None:
    log_p = log_probabilities(logits(6, 30))
    loss, overlap = ranking_loss(log_p, log_p, 5, 0.05)
    torch.testing.assert_close((loss, overlap), (torch.zeros(6), torch.ones(6)), atol=1e-6, rtol=0)
    few = log_p[:, :4]
    reversed_loss, _ = ranking_loss(few, -few, 4, 1e-4, on="log-probability")
    assert (reversed_loss > 1.5).all()


@pytest.mark.parametrize("on", ["probability", "log-probability"])
def test_ranking_gradients_agree_with_finite_differences(on: str) -> None:
    log_p, student = log_probabilities(logits(2, 6)), logits(2, 6, seed=1)

    def value(z: torch.Tensor) -> torch.Tensor:
        return ranking_loss(log_p, log_probabilities(z), 6, 0.5, on=on)[0].sum()

    at = student.clone().requires_grad_()
    value(at).backward()
    torch.testing.assert_close(at.grad, finite_differences(value, student), atol=3e-3, rtol=3e-2)


def test_what_is_masked_out_gets_no_gradient_and_moves_nobody() -> None:
    values = torch.tensor([[0.3, 0.1, 0.2], [0.3, 0.1, 7.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]] * 2)
    ranks = soft_ranks(values, mask, 0.1)
    torch.testing.assert_close(ranks[0], ranks[1])
    weights = torch.tensor([1.0, -2.0, 3.0])
    assert torch.autograd.grad((ranks * weights).sum(), values)[0][:, 2].tolist() == [0.0, 0.0]


def test_shuffled_ranks_keep_their_members() -> None:
    log_p, log_q = log_probabilities(logits(50, 30)), log_probabilities(logits(50, 30))
    noise = torch.rand(50, 10, generator=torch.Generator().manual_seed(0))
    loss, overlap = ranking_loss(log_p, log_q, 5, 0.01, shuffle=noise)
    assert loss.mean() > 0.5
    torch.testing.assert_close(overlap, torch.ones(50))


def test_one_word_or_a_flat_distribution_has_no_order_to_get_wrong() -> None:
    flat = torch.full((1, 5), -math.log(5)).requires_grad_()
    loss, _ = ranking_loss(flat.detach(), flat, 3, 0.05)
    loss.sum().backward()
    assert loss.item() == 0.0
    assert torch.isfinite(flat.grad).all()


def test_ranks_of_logits_are_those_of_log_probabilities_and_ruled_out_words_come_last() -> None:
    teacher, student = 3 * logits(4, 9), 3 * logits(4, 9, seed=1)
    found = ranking_loss(teacher, student, 3, 1.0)
    wanted = ranking_loss(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1), 3, 1.0)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    student[:, 2:] = -math.inf
    student.requires_grad_()
    loss, _ = ranking_loss(teacher, student, 3, 1.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(student.grad[:, :2]).all()


def test_cr_and_mor_by_hand() -> None:
    teacher = torch.tensor([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    student = torch.tensor([[9.0, 3.0, 2.0, 1.0], [4.0, 2.0, 3.0, 9.0]])
    same, overlap = order_agreement(teacher, student, 3)
    torch.testing.assert_close((same, overlap), (torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2 / 3])))


# --- features ---------------------------------------------------------------------------------------------------------


def test_alignment_by_hand() -> None:
    s, t = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[3.0, 4.0], [2.0, 0.0]])
    torch.testing.assert_close(alignment(s, t, "nd"), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(alignment(s, t, "cos"), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(alignment(s, t, "mse"), torch.tensor([0.0, 2.5]))
    torch.testing.assert_close(alignment(s, t, "cos-norm"), torch.tensor([0.0, 1.0 + math.log(2) ** 2]))


def test_nd_asks_for_the_norm_as_well_as_the_direction() -> None:
    t = torch.tensor([[0.0, 2.0]])
    assert alignment(0.5 * t, t, "nd").item() == pytest.approx(0.5)
    assert alignment(3.0 * t, t, "nd").item() == pytest.approx(0.0)
    assert alignment(0.5 * t, t, "cos").item() == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["nd", "cos", "cos-norm", "mse"])
def test_alignment_gradients_agree_with_finite_differences(kind: str) -> None:
    s, t = logits(3, 4), logits(3, 4, seed=1)

    def value(states: torch.Tensor) -> torch.Tensor:
        return alignment(states, t, kind).sum()  # type: ignore[arg-type]

    at = s.clone().requires_grad_()
    value(at).backward()
    torch.testing.assert_close(at.grad, finite_differences(value, s, 3e-3), atol=5e-3, rtol=3e-2)


@pytest.mark.parametrize("kind", ["nd", "cos", "cos-norm", "mse"])
def test_states_of_zero_and_extreme_states_give_finite_gradients(kind: str) -> None:
    s = torch.tensor([[0.0, 0.0], [1e30, 1.0]], dtype=torch.bfloat16).requires_grad_()
    t = torch.tensor([[1.0, 0.0], [1.0, 1e-30]], dtype=torch.bfloat16)
    value = alignment(s, t, kind)  # type: ignore[arg-type]
    if kind != "mse":
        assert torch.isfinite(value[0])
    value[0].backward()
    assert torch.isfinite(s.grad[0]).all()


def test_cka_does_not_see_rotations_and_centred_cosine_does_not_see_a_shared_direction() -> None:
    states = logits(40, 5).double()
    rotation = torch.linalg.qr(logits(5, 5, seed=2).double()).Q
    assert linear_cka(states, 3 * states @ rotation).item() == pytest.approx(1.0)
    other = logits(40, 5, seed=5).double()
    assert torch.nn.functional.cosine_similarity(states + 50, other + 50, dim=-1).mean() > 0.9
    assert abs(centred_cosine(states + 50, other + 50).item()) < 0.3


def test_a_few_long_states_rule_cka_unless_directions_are_compared() -> None:
    s, t = logits(200, 6, seed=1), logits(200, 8, seed=2)
    s[:5], t[:5] = 40.0, 40.0
    assert linear_cka(s, t) > 0.9
    assert linear_cka(directions(s), directions(t)) < 0.3
    torch.testing.assert_close(directions(s).norm(dim=-1), torch.ones(200))


# --- preference -------------------------------------------------------------------------------------------------------


def test_preference_starts_at_log_two_and_falls_as_the_gap_grows() -> None:
    before = torch.tensor([-3.0, -3.0]), torch.tensor([-2.0, -2.0])
    found = preference(torch.tensor([-3.0, -1.0]), torch.tensor([-2.0, -4.0]), *before, beta=0.5)
    torch.testing.assert_close(found, torch.tensor([math.log(2), math.log1p(math.exp(-2.0))]))


def test_imitation_is_per_token_and_sums_go_to_their_rows() -> None:
    sums = sequence_sums(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(sums, torch.tensor([-3.0, -4.0]))
    torch.testing.assert_close(imitation(sums, torch.tensor([2.0, 1.0])), torch.tensor([1.5, 4.0]))
