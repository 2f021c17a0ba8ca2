"""Path consistency over token sequences (Nachum et al. 2017, 1702.08892; with a price on asking as in Trust-PCL's
constrained setting, 1707.01891).

Rows are texts, columns are states s_0..s_T; `gains[t]` is what action t adds, reward - price * cost - temperature *
log-probability. For a window of d steps

    C_t = -V(s_t) + V(s_end) + sum of gains between,    end = min(t + d, T)

and every C is 0 for the optimal policy and its value, whoever wrote the text.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def ask_or_go(help_logit: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N,) of `<help>` and of the likeliest word -> log-probabilities of asking and of going on, (N,) each.

    The vocabulary plus `<help>` as it is served at temperature 0: the vocabulary's part of the softmax is its largest
    logit alone, and the greedy choice asks exactly where log_ask > log_go.
    """
    assert help_logit.shape == largest.shape
    odds = help_logit - largest
    return logsigmoid(odds), logsigmoid(-odds)


def word_or_ask(word: Tensor, normaliser: Tensor, help_logit: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Logits (N,) of the word written, log sum exp over the vocabulary, and `<help>` (None: banned) -> log-probability
    of the word and of asking, among the vocabulary plus `<help>`."""
    assert word.shape == normaliser.shape
    if help_logit is None:
        return word - normaliser, None
    assert help_logit.shape == word.shape
    whole = torch.logaddexp(normaliser, help_logit)
    return word - whole, help_logit - whole


def rewards(log_p: Tensor, best: Tensor, kind: str, worst: float) -> Tensor:
    """Teacher's log-probabilities (...,) of what was written and of its likeliest word -> reward (...,), at least
    -worst. `regret` is what the word costs against the teacher's own, 0 where the two agree; `log-probability` is
    log p itself."""
    assert log_p.shape == best.shape
    return (log_p - best if kind == "regret" else log_p).clamp_min(-worst)


def surer(log_p: Tensor, best: Tensor) -> Tensor:
    """Teacher's log-probabilities (...,) of what was written and of its likeliest word -> by how much likelier it holds
    the latter to be right (...,), 0 to 1. Of two words that the teacher finds both unlikely none is much of a help,
    however many nats lie between them."""
    assert log_p.shape == best.shape
    return (best.exp() - log_p.exp()).clamp_min(0.0)


def known_log_p(words: Tensor, top_ids: Tensor, top_log_p: Tensor) -> Tensor:
    """Teacher's log-probability of `words` (N,) of which its `K` likeliest are known, (N, K) each -> (N,). A word that
    is none of them has at most the least of them, and at most what is left to 1."""
    assert top_ids.shape == top_log_p.shape == (len(words), top_ids.shape[-1])
    same = top_ids == words[:, None]
    left = torch.log((-torch.expm1(torch.logsumexp(top_log_p, -1).clamp_max(0.0))).clamp_min(1e-30))
    most = torch.minimum(top_log_p[:, -1], left)
    return torch.where(same.any(-1), torch.where(same, top_log_p, 0.0).sum(-1), most)


def step_errors(value: Tensor, next_value: Tensor, gain: Tensor) -> Tensor:
    """C of one step: -V(s) + V(s') + gain, any shape."""
    assert value.shape == next_value.shape == gain.shape
    return -value + next_value + gain


def window_errors(
    values: Tensor, gains: Tensor, length: Tensor, decisions: Tensor, usable: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """C of all windows of `window` steps: values (B, T + 1), gains (B, T), length (B,) of each text, decisions (B, T)
    where an action may begin, usable (B, T) where the gain is known -> errors (B, T), which of them count (B, T).

    `values` holds 0 (or a bootstrap) at column `length`. A window that begins or ends inside a help segment, or runs
    over an unknown gain, does not count.
    """
    rows, steps = gains.shape
    assert values.shape == (rows, steps + 1)
    assert length.shape == (rows,)
    assert decisions.shape == usable.shape == (rows, steps)
    place = torch.arange(steps, device=gains.device).expand(rows, steps)
    end = torch.minimum(place + window, length[:, None])
    alive = place < length[:, None]
    end = torch.where(alive, end, place)
    zero = gains.new_zeros(rows, 1)
    sums = torch.cat([zero, torch.where(usable, gains, gains.new_zeros(())).cumsum(-1)], -1)
    unknown = torch.cat([zero.long(), (~usable).long().cumsum(-1)], -1)
    errors = -values[:, :-1] + values.gather(1, end) + sums.gather(1, end) - sums[:, :-1]
    ends_well = torch.cat([decisions, torch.ones_like(decisions[:, :1])], -1).gather(1, end) | (end == length[:, None])
    counts = alive & decisions & ends_well & (unknown.gather(1, end) == unknown[:, :-1])
    return errors, counts


def returns_behind(values: Tensor, errors: Tensor, counts: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, T + 1), errors and counts of `window_errors` -> what was earned from the state behind each word on,
    (B, T), and where that is known (B, T). C is a window's return minus V, so the return is C + V; behind the last word
    it is the value there."""
    last = torch.arange(1, values.shape[1], device=values.device)[None, :] == length[:, None]
    zero, no = errors.new_zeros(len(errors), 1), torch.zeros_like(counts[:, :1])
    errors, counts = torch.cat([errors[:, 1:], zero], -1), torch.cat([counts[:, 1:], no], -1)
    return values[:, 1:] + torch.where(last, zero, errors), counts | last


def half_squares(errors: Tensor, counts: Tensor, price: Tensor) -> Tensor:
    """Sum of C^2 / 2 over those that count, each divided by 1 + price (Stooke et al. 2020, 2007.03964): a steep price
    must not drown what is learned under the gentle ones."""
    assert errors.shape == counts.shape == price.shape
    return (0.5 * errors.square() * counts / (1.0 + price)).sum()
