"""The lesson: distillation on every state of a text, path consistency over the vocabulary plus `<help>`, and two
critics beside the student."""

from typing import Any

import torch
from torch import Tensor, nn

from training.distill.batches import Batch
from training.distill.config import DistillConfig, WheelsConfig
from training.distill.lesson import Lesson
from training.distill.losses.blocks import by_blocks
from training.distill.losses.divergence import known_divergence
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
from training.distill.models import head_of, states
from training.distill.wheels.trajectories import ASK, GO, INSIDE, NEITHER, WheelsBatch


def to_be_read(share: Tensor) -> Tensor:
    """(B,) shares that sentences allow -> (B, 2) what is to be read of them: over the usual levels both numbers vary by
    about as much."""
    return torch.stack([share.log(), 4.0 * share], -1)


class Critic(nn.Module):
    """A value of what it reads: (..., width) -> (...,). It reads the student's states and does not shape them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 128), nn.Linear(128, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, state: Tensor) -> Tensor:
        found: Tensor = self.outer(torch.nn.functional.gelu(self.inner(state.detach().float()))).squeeze(-1)
        return found


class WheelsLesson(Lesson):
    """`vocabulary`: words that both models share; `help_id`: `<help>`'s id behind them, None without help; `eos`: the
    word that ends a text."""

    def __init__(
        self, student: Any, config: DistillConfig, *, vocabulary: int, help_id: int | None, eos: int | None
    ) -> None:
        super().__init__(student)
        assert config.wheels is not None
        self._wheels: WheelsConfig = config.wheels
        self._tokens = config.training.tokens_at_once
        self._vocabulary, self._help, self._eos = vocabulary, help_id, eos
        width = int(student.config.get_text_config().hidden_size)
        greedy = config.wheels.decoding == "greedy" and help_id is not None
        # None is made by which nothing is learned: an optimizer has nothing to keep of it, and cannot go on from that.
        valued = config.wheels.consistency > 0 and (greedy or config.wheels.value)
        self.value = Critic(width) if valued else None
        self.cost = Critic(width) if help_id is not None and config.wheels.critic else None
        # What the sentence allows, read off the state: a student that was distilled has learned to look past everything
        # that does not change its words, and would find out late that the sentence is worth looking at. Two numbers, or
        # the levels would lie on a line in the state and no row could give each the price that it needs.
        self.allowed = nn.Linear(width, 2) if help_id is not None and config.wheels.reading else None
        # The value after a word that may not have been written: from the state before it and the word; and how many
        # nats follow for each that the teacher finds the word worse than its own. The student does not know whether its
        # word is right, so its state alone cannot tell what a wrong one leads to; a critic is there in training only,
        # and may know more than who acts (2509.26000).
        bootstrapped = greedy and config.wheels.value and not config.wheels.judged
        self.after = Critic(2 * width) if valued and bootstrapped else None
        self.again = Critic(2 * width) if valued and bootstrapped and config.wheels.informed else None
        # What the teacher's word brings the whole text: from the state, both words, and how far the text has come.
        self.gain = Critic(3 * width + 1) if valued and config.wheels.forked else None

    def weight(self, batch: Batch) -> float:
        assert isinstance(batch, WheelsBatch)
        return float(batch.alive.sum())

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        del step
        assert isinstance(batch, WheelsBatch)
        wheels = self._wheels
        last = self._along(states(self.student, batch).last, batch)
        seen = self._looked(last, batch)
        learned = torch.where(batch.on_policy, wheels.own_words, 1.0)[:, None]
        total = wheels.distillation * (learned * seen["divergence"]).sum()
        out = {"divergence": seen["divergence"].detach().sum()}
        if self._help is not None and wheels.normaliser:
            pinned = seen["normaliser"].square().sum()
            total = total + wheels.normaliser * pinned
            out["normaliser"] = pinned.detach()
        if self.allowed is not None:
            reading = self._reading(last, batch)
            total = total + wheels.reading * reading
            out["reading"] = reading.detach()
        if wheels.consistency:
            parts = self._consistency(last, seen, batch)
            total = total + wheels.consistency * sum(parts.values(), torch.zeros((), device=last.device))
            out |= {name: value.detach() for name, value in parts.items()}
        if self.cost is not None:
            cost = self._cost(last, batch)
            total = total + wheels.critic * cost
            out["cost"] = cost.detach()
        return {"loss": total, **out}

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch, WheelsBatch)
        seen = self._looked(self._along(states(self.student, batch).last, batch), batch)
        out = {"kl": seen["divergence"].sum(), "weight": batch.alive.sum().float()}
        agree: Tensor = (seen["own"] == batch.best) & batch.alive
        return out | {"top1": agree.sum().float()}

    # --- what the student says ---------------------------------------------------------------------------------------

    def _along(self, last: Tensor, batch: WheelsBatch) -> Tensor:
        """(B, W, width) of all columns -> (B, T + 1, width) of s_0..s_T."""
        return last[torch.arange(len(last), device=last.device)[:, None], batch.states]

    def _looked(self, last: Tensor, batch: WheelsBatch) -> dict[str, Tensor]:
        """name -> (B, T): divergence from the teacher, the student's likeliest word (`own`), its logit (`largest`) and
        what the teacher gives it, the logit of the text's word, the normaliser over the vocabulary, `<help>`'s logit.
        """
        alive = batch.alive
        words, top_ids, top_log_p = batch.words[alive], batch.top_ids[alive], batch.top_log_p[alive]
        vocabulary, help_id = self._vocabulary, self._help
        head = head_of(self.student, vocabulary if help_id is None else max(vocabulary, help_id + 1))

        greedy = self._wheels.decoding == "greedy" and help_id is not None

        def per_token(logits: Tensor, _none: Tensor | None, at: slice) -> dict[str, Tensor]:
            of_words = logits[:, :vocabulary]
            # Who is likeliest carries no gradient: one pass less over the vocabulary.
            largest, own = of_words.detach().max(-1)
            normaliser = torch.logsumexp(of_words, -1)
            some = {
                "divergence": known_divergence(of_words, normaliser, top_ids[at], top_log_p[at]),
                "own": own,
                "own_log_p": known_log_p(own, top_ids[at], top_log_p[at]),
                "largest": largest,
                "normaliser": normaliser,
            }
            if not greedy:
                some["word"] = of_words.gather(-1, words[at][:, None]).squeeze(-1)
            return some if help_id is None else some | {"help": logits[:, help_id]}

        flat = by_blocks(last[:, :-1][alive], head, None, None, per_token, self._tokens)
        return {
            name: torch.zeros(alive.shape, dtype=value.dtype, device=value.device).masked_scatter(alive, value)
            for name, value in flat.items()
        }

    def _reading(self, last: Tensor, batch: WheelsBatch) -> Tensor:
        """Sum of squared errors of the logarithm of the share that the sentence allows, and of the share itself."""
        assert self.allowed is not None
        errors = self.allowed(last[:, :-1].float()) - to_be_read(batch.share)[:, None]
        found: Tensor = (errors.square().sum(-1) * (batch.alive & batch.asks[:, None])).sum()
        return found

    def _values(self, critic: Critic | None, last: Tensor, batch: WheelsBatch) -> Tensor:
        """Of s_0..s_T (B, T + 1), with 0 behind an end; 0 everywhere without a critic."""
        if critic is None:
            return last.new_zeros(last.shape[:2], dtype=torch.float32)
        column = torch.arange(last.shape[1], device=last.device)[None, :]
        over = (column > batch.length[:, None]) | ((column == batch.length[:, None]) & batch.ended[:, None])
        found: Tensor = critic(last).masked_fill(over, 0.0)
        return found

    def _after(self, last: Tensor, words: Tensor, log_p: Tensor, best: Tensor) -> Tensor:
        """(B, T) value of the state after `words` (B, T), 0 where they end the text. `log_p`, `best` (B, T): what the
        teacher gives them, and its own likeliest word."""
        assert self.after is not None
        read = torch.cat([last[:, :-1], self.student.get_input_embeddings()(words.clamp_min(0))], -1)
        found: Tensor = self.after(read)
        if self.again is not None:
            found = found + self.again(read) * rewards(log_p, best, "regret", self._wheels.worst)
        return found if self._eos is None else found.masked_fill(words == self._eos, 0.0)

    # --- path consistency --------------------------------------------------------------------------------------------

    def _consistency(self, last: Tensor, seen: dict[str, Tensor], batch: WheelsBatch) -> dict[str, Tensor]:
        if self._wheels.decoding == "greedy" and self._help is not None:
            return self._greedy(last, seen, batch)
        return self._sampled(last, seen, batch)

    def _greedy(self, last: Tensor, seen: dict[str, Tensor], batch: WheelsBatch) -> dict[str, Tensor]:
        """Both actions at every state: the student's likeliest word, and asking; then windows along the text."""
        wheels, heat, alive = self._wheels, self._wheels.heat, batch.alive
        # Distillation makes the words; path consistency moves `<help>` against them, not them against it.
        log_ask, log_go = ask_or_go(seen["help"], seen["largest"])
        best = batch.top_log_p[..., 0]
        price = batch.price[:, None].expand_as(log_go)
        values = self._values(self.value, last, batch)
        if wheels.judged:
            gain = None if self.gain is None else self._gain(last, seen["own"], batch)
            return self._judged(seen, batch, values[:, :-1], log_ask, log_go, gain)
        of_own = rewards(seen["own_log_p"], best, wheels.reward, wheels.worst)
        of_best = rewards(best, best, wheels.reward, wheels.worst)
        allowed = alive & batch.asks[:, None]
        acted = self._acted(seen, batch, log_ask > log_go)
        helped = (acted == ASK) | (acted == INSIDE)
        gains = torch.where(helped, of_best - price, of_own)
        gains = gains - heat * torch.where(acted == ASK, log_ask, torch.where(acted == GO, log_go, 0.0))
        usable = allowed & (helped | (acted == GO))
        decisions = alive & (acted != INSIDE)
        windows = wheels.windows if wheels.segment == 1 else (wheels.segment, *wheels.windows)
        after_own = after_best = torch.zeros_like(of_own)
        parts = {}
        if wheels.value:
            written = self._after(last, batch.words, batch.log_p, best)
            for length in windows:
                errors, counts = window_errors(values, gains, batch.length, decisions, usable, length)
                # Its scale: a window's error is the sum of its steps'.
                parts[f"window_{length}"] = half_squares(errors, counts, price) / length
                # Not V of the next state: that, too, is read off the student, who does not know if its word was right.
                told, known = returns_behind(values.detach(), errors.detach(), counts, batch.length)
                parts[f"after_{length}"] = half_squares(told - written, allowed & known, price) / length
            with torch.no_grad():
                after_own = self._after(last, seen["own"], seen["own_log_p"], best)
                after_best = self._after(last, batch.best, best, best)
        go = step_errors(values[:, :-1], after_own, of_own - heat * log_go)
        parts["go"] = half_squares(go, allowed, price)
        if wheels.segment == 1:
            ask = step_errors(values[:, :-1], after_best, of_best - price - heat * log_ask)
            parts["ask"] = half_squares(ask, allowed, price)
        return parts

    def _gain(self, last: Tensor, own: Tensor, batch: WheelsBatch) -> Tensor:
        """(B, T) likeness that the teacher's word brings the whole text, if it is right."""
        assert self.gain is not None
        embedded = self.student.get_input_embeddings()
        words = [embedded(one.clamp_min(0)).float() for one in (own, batch.best)]
        place = torch.arange(own.shape[1], device=own.device).float().log1p().expand(own.shape)
        found: Tensor = self.gain(torch.cat([last[:, :-1].float(), *words, place[..., None]], -1))
        return found

    def _judged(
        self,
        seen: dict[str, Tensor],
        batch: WheelsBatch,
        values: Tensor,
        log_ask: Tensor,
        log_go: Tensor,
        gain: Tensor | None,
    ) -> dict[str, Tensor]:
        """Both actions to the end of the text. What going on earns is the zero that this is counted from, so V is what
        the better of the two earns above it. `gain` (B, T): of the teacher's word at each state, learned from forks:
        one fork alone says more about chance than about its state."""
        heat = self._wheels.heat
        price = batch.price[:, None].expand_as(values)
        mine = (batch.alive & (batch.on_policy & batch.asks)[:, None]).float()
        parts = {}
        if gain is not None:
            known = mine * batch.weight * (seen["own"] != batch.best) * self._right(seen, batch)
            parts["gain"] = half_squares(gain - batch.worth, known, torch.zeros_like(price))
        end = torch.zeros_like(values)
        ask = step_errors(values, end, self._worth(seen, batch, gain) - price - heat * log_ask)
        return parts | {
            "go": half_squares(step_errors(values, end, -heat * log_go), mine, price),
            "ask": half_squares(ask, mine, price),
        }

    def _right(self, seen: dict[str, Tensor], batch: WheelsBatch) -> Tensor:
        """(B, T) by how much likelier the teacher's word is right. One that is the student's too by now is no longer
        worth asking for."""
        return surer(seen["own_log_p"], batch.top_log_p[..., 0])

    def _worth(self, seen: dict[str, Tensor], batch: WheelsBatch, gain: Tensor | None) -> Tensor:
        """(B, T) nats that asking earns above going on."""
        right, wheels = self._right(seen, batch), self._wheels
        return right * (wheels.word if gain is None else wheels.word + wheels.likeness * gain.detach().clamp_min(0.0))

    @torch.no_grad()
    def doubts(self, batch: WheelsBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the N states in the student's own texts under a restriction: what the head reads (N, width), the largest
        logit of a word, what asking is worth, and its price (N,)."""
        last = self._along(states(self.student, batch).last, batch)
        seen = self._looked(last, batch)
        worth = self._worth(seen, batch, None if self.gain is None else self._gain(last, seen["own"], batch))
        mine = batch.alive & (batch.on_policy & batch.asks)[:, None]
        price = batch.price[:, None].expand_as(worth)
        return last[:, :-1][mine].float(), seen["largest"][mine], worth[mine], price[mine]

    def _acted(self, seen: dict[str, Tensor], batch: WheelsBatch, asks: Tensor) -> Tensor:
        """(B, T) which action the text shows. Where both lead to its word, the one that the student would take now."""
        could_go = seen["own"] == batch.words
        if self._wheels.segment > 1:
            # A segment is as it was written; a word that the student would no longer choose is nobody's.
            going = torch.where(could_go, GO, NEITHER)
            return torch.where((batch.acted == ASK) | (batch.acted == INSIDE), batch.acted, going)
        could_ask = batch.words == batch.best
        return torch.where(could_ask & (asks | ~could_go), ASK, torch.where(could_go, GO, NEITHER))

    def _sampled(self, last: Tensor, seen: dict[str, Tensor], batch: WheelsBatch) -> dict[str, Tensor]:
        """Every word of any text is an action of the softmax over the vocabulary plus `<help>`."""
        wheels, heat, alive = self._wheels, self._wheels.heat, batch.alive
        log_word, _ = word_or_ask(seen["word"], seen["normaliser"], None)
        log_ask = torch.zeros_like(log_word)
        if self._help is not None:
            free = word_or_ask(seen["word"], seen["normaliser"], seen["help"])
            assert free[1] is not None
            asks = batch.asks[:, None]
            log_word, log_ask = torch.where(asks, free[0], log_word), torch.where(asks, free[1], log_ask)
        acted = batch.acted
        helped = (acted == ASK) | (acted == INSIDE)
        price = batch.price[:, None].expand_as(log_word)
        # What the teacher writes is drawn from the teacher: it earns log p - log p = 0, and costs its price.
        of_help = -price - heat * torch.where(acted == ASK, log_ask, 0.0)
        gains = torch.where(helped, of_help, batch.log_p - heat * log_word)
        values = self._values(self.value, last, batch)
        decisions = alive & (acted != INSIDE)
        parts = {}
        for length in sorted({1, wheels.segment, *wheels.windows}):
            errors, counts = window_errors(values, gains, batch.length, decisions, alive, length)
            parts[f"window_{length}"] = half_squares(errors, counts, price) / length
        return parts

    def _cost(self, last: Tensor, batch: WheelsBatch) -> Tensor:
        """The cost critic: how many tokens of the teacher are still to come, from the student's own texts."""
        values = self._values(self.cost, last, batch)
        helped = ((batch.acted == ASK) | (batch.acted == INSIDE)).float()
        mine = batch.alive & (batch.on_policy & batch.asks)[:, None]
        total = torch.zeros((), device=last.device)
        for length in (1, 16):
            errors, counts = window_errors(values, helped, batch.length, mine, mine, length)
            total = total + half_squares(errors, counts, torch.zeros_like(errors)) / length
        return total
