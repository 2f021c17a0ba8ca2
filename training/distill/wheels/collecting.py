"""Rounds: the pair writes texts, the multipliers move, and the next steps learn from what was kept; the data's own
texts are mixed in, each time another row of them.

A round is written to disk when it is collected, with the multipliers after it, so that a run that was stopped goes on
with the same texts. Which texts a step sees depends on the seed and the step alone.
"""

import json
import os
import random
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.constraint import Gains, Multiplier, falling, start, update
from training.distill.batches import Course
from training.distill.cached import CachedTeacher
from training.distill.config import DistillConfig
from training.distill.examples import Row
from training.distill.frame import seeded
from training.distill.losses.path_consistency import known_log_p, rewards, surer
from training.distill.wheels.forks import chosen, worth
from training.distill.wheels.mixing import Asker, Mixed, by_help, explored, looked_at, mixed, never
from training.distill.wheels.prompts import Example, restricted
from training.distill.wheels.restrictions import Restriction, sampled
from training.distill.wheels.trajectories import (
    NEITHER,
    Trajectory,
    WheelsBatch,
    collate_trajectories,
    load_trajectories,
    save_trajectories,
)
from training.distill.writing import written

AT_ONCE = 256
PROBED = 256
FARTHEST = 0.5


@dataclass(frozen=True, slots=True)
class Models:
    student: Any
    teacher: Any
    tokenizer: Any
    vocabulary: int
    help_id: int | None
    pad_id: int
    eos: int | None
    cached: CachedTeacher | None = None
    """What the teacher says of the data's texts, where that is kept."""


def first_prices(levels: Sequence[float]) -> Multiplier:
    """Prices before anything was seen: what a text whose regret falls off exponentially would need."""
    shares = np.asarray(levels, dtype=np.float64)
    return start(shares, -0.9 * np.log(shares))


def prices_of(levels: Sequence[float], score: Tensor, regret: Tensor) -> Multiplier:
    """Prices to begin with, from the states (N,) of a round: states ranked by the score of `<help>`, a level's price is
    the mean regret of those about its share, where asking should just pay."""
    ranked = regret[score.argsort(descending=True)]
    count = len(ranked)
    found = []
    for share in levels:
        middle = share * count
        low = min(int(0.6 * middle), count - 1)
        found.append(float(ranked[low : max(low + 1, round(1.4 * middle))].mean()))
    return start(np.asarray(levels, dtype=np.float64), falling(np.asarray(found)))


class Rounds:
    """The source of batches. `folder` holds round-NNNN.pt and round-NNNN.json."""

    def __init__(
        self,
        config: DistillConfig,
        models: Models,
        examples: Sequence[Example],
        folder: Path,
        *,
        steps: int,
        prompts: Sequence[Example] | None = None,
        tick: Callable[[str], None] = lambda _said: None,
    ) -> None:
        assert config.wheels is not None
        self._config, self._wheels, self._models = config, config.wheels, models
        self._examples, self._folder = list(examples), folder
        self._course = self._epochs()
        self._lengths = sorted(len(one.answer) for one in examples)
        self._prompts = list(examples if prompts is None else prompts)
        self._per_round = max(1, -(-steps // config.wheels.rounds))
        self._kept: dict[int, list[Trajectory]] = {}
        self._tick = tick
        self.state = first_prices(config.wheels.levels)
        self.history: list[dict[str, Any]] = []

    # --- batches -----------------------------------------------------------------------------------------------------

    def batch(self, step: int, micro: int, rank: int, world: int) -> WheelsBatch:
        number = step // self._per_round
        pool = [one for index in self._window(number) for one in self._round(index)] if self._collects else []
        rows = self._config.training.rows
        draw = random.Random((self._config.seed * 1_000_003 + step) * 4_099 + micro * world + rank)
        of_data = rows if not pool else round(rows * self._of_data)
        first = ((step * self._config.training.accumulate + micro) * world + rank) * of_data
        told = [self._examples[self._course.at(first + i)[0].number] for i in range(of_data)]
        middle = len(told[of_data // 2].answer) if told else 0
        place = bisect(self._lengths, middle) / len(self._lengths) if told else draw.random()
        some = _alike(pool, rows - of_data, lambda one: len(one.tokens), place, draw)
        return self.collated([*some, *self.read(told, draw)])

    def _epochs(self) -> Course:
        """The data's texts, each once before any comes again: drawn by chance they teach less."""
        count = max(1, round(self._config.training.rows * self._of_data))
        packs = [(Row((*one.prompt, *one.answer), len(one.prompt), at),) for at, one in enumerate(self._examples)]
        return Course(
            packs, rows=count, accumulate=1, seed=self._config.seed, pad_id=self._models.pad_id, padding="right",
            by_length=True,
        )  # fmt: skip

    @property
    def _of_data(self) -> float:
        """Part of the rows that are the data's texts."""
        return self._wheels.off_policy * (1 - self._wheels.teacher_text)

    @property
    def _collects(self) -> bool:
        """Not where there are only words to be learned, of the data's texts."""
        return self._of_data < 1 or self._wheels.consistency > 0

    def collated(self, some: Sequence[Trajectory]) -> WheelsBatch:
        prices = [0.0 if one.level is None else self.price(one.level) for one in some]
        return collate_trajectories(some, prices, pad_id=self._models.pad_id, levels=self._wheels.levels)

    def own(self) -> list[Trajectory]:
        """The student's own texts of the rounds that are still learned from."""
        return [one for kept in self._kept.values() for one in kept if one.source == "student"]

    def price(self, level: int) -> float:
        return float(self.state.price[level])

    def _window(self, number: int) -> range:
        return range(max(0, number + 1 - self._wheels.rounds_kept), number + 1)

    def _round(self, number: int) -> list[Trajectory]:
        if number not in self._kept:
            file = self._folder / f"round-{number:04d}.pt"
            if not file.exists() or not file.with_suffix(".json").exists():
                if number:
                    self._remember(number - 1)
                self._collect(number, file)
            self._kept[number] = load_trajectories(file)
            self._remember(number)
        for old in [index for index in self._kept if index <= number - self._wheels.rounds_kept]:
            del self._kept[old]
        return self._kept[number]

    def _remember(self, number: int) -> None:
        """The multipliers after round `number`."""
        told = json.loads((self._folder / f"round-{number:04d}.json").read_text())
        self.state = Multiplier(*(np.asarray(told[name]) for name in ("budgets", "price", "integral", "cost")))
        self.history = [one for one in self.history if one["round"] != number] + [told]
        self.history.sort(key=lambda one: int(one["round"]))

    # --- collecting --------------------------------------------------------------------------------------------------

    def _collect(self, number: int, file: Path) -> None:
        wheels = self._wheels
        draw = random.Random(self._config.seed * 7_919 + number)
        count = min(wheels.trajectories, len(self._prompts))
        mine = (1 - wheels.off_policy) / max(1e-9, 1 - self._of_data)
        own = round(mine * count) if self._of_data < 1 else 0
        some = self._chosen(number, count) if self._of_data < 1 else []
        seen: list[tuple[Trajectory, Mixed]] = self.write(some[:own], draw, number)
        if wheels.forked:
            seen = self._forked(seen, draw)
        found = [one for one, _ in seen] + self.teachers(some[own:], draw)
        save_trajectories(file, found)
        if not own and self._models.help_id is not None:
            # Nothing is learned from these, but prices need to see what is asked for.
            seen = self.write(self._chosen(number, min(PROBED, len(self._prompts))), draw, number)
        state = self._moved(number, [(one, text) for one, text in seen if one.served])
        shares = self.shares([one for one, _ in seen])
        told = {
            "round": number,
            **{name: getattr(state, name).tolist() for name in ("budgets", "price", "integral", "cost")},
            "share": [None if value is None else round(value, 5) for value in shares],
            "texts": len(found),
        }
        beside = file.with_suffix(".json.part")
        beside.write_text(json.dumps(told) + "\n")
        os.replace(beside, file.with_suffix(".json"))
        self._tick(f"round {number}: shares {told['share']} prices {[round(p, 2) for p in told['price']]}")

    def _chosen(self, number: int, count: int) -> list[Example]:
        """The next `count` prompts of an order that the seed gives."""
        size = len(self._prompts)
        orders: dict[int, Any] = {}
        found = []
        for place in range(number * count, (number + 1) * count):
            epoch, index = divmod(place, size)
            if epoch not in orders:
                orders[epoch] = np.random.default_rng(self._config.seed * 1_009 + epoch).permutation(size)
            found.append(self._prompts[int(orders[epoch][index])])
        return found

    def _restriction(self, draw: random.Random) -> Restriction | None:
        """Drawn anew for each text; None: none, and `<help>` banned."""
        wheels = self._wheels
        if self._models.help_id is None or draw.random() < wheels.unrestricted:
            return None
        return sampled(wheels.levels, wheels.phrasings, draw)

    def _prompt(self, one: Example, restriction: Restriction | None) -> list[int]:
        return restricted(one, restriction, self._config.data, self._models.tokenizer)

    def _level(self, restriction: Restriction | None) -> int | None:
        return None if restriction is None else self._wheels.levels.index(restriction.share)

    def write(self, some: Sequence[Example], draw: random.Random, number: int) -> list[tuple[Trajectory, Mixed]]:
        """The student's own texts for `some`, with help, each under a restriction drawn anew. Long ones together."""
        found: list[tuple[Trajectory, Mixed]] = []
        ordered = sorted(some, key=lambda one: (len(one.prompt), one.number))
        for begin in range(0, len(ordered), AT_ONCE):
            found += self._written(ordered[begin : begin + AT_ONCE], draw, number)
        return found

    def _forked(self, seen: Sequence[tuple[Trajectory, Mixed]], draw: random.Random) -> list[tuple[Trajectory, Mixed]]:
        """The same with what the teacher's word brings at some states of those under a restriction."""
        models, data, wheels = self._models, self._config.data, self._wheels
        mine = [place for place, (one, _) in enumerate(seen) if one.level is not None]
        by_number = {one.number: one for one in self._prompts}
        texts, prompts = [seen[i][1] for i in mine], [seen[i][0].prompt for i in mine]
        theirs: list[list[int]] = []
        for begin in range(0, len(mine), AT_ONCE):
            some = [by_number[seen[i][0].number].prompt for i in mine[begin : begin + AT_ONCE]]
            theirs += written(
                models.teacher, some, limits=[min(wheels.max_new_tokens, data.context - len(one)) for one in some],
                eos=models.eos, pad_id=models.pad_id, vocabulary=models.vocabulary, temperature=0.0,
                generator=torch.Generator(),
            )  # fmt: skip
        found = worth(
            texts, prompts, theirs, chosen(texts, wheels.forks, draw), models.student, models.tokenizer,
            limits=[min(wheels.max_new_tokens, data.context - len(one)) for one in prompts], eos=models.eos,
            pad_id=models.pad_id, vocabulary=models.vocabulary,
        )  # fmt: skip
        out = list(seen)
        for place, (gain, weight) in zip(mine, found, strict=True):
            out[place] = (replace(seen[place][0], worth=gain, weight=weight), seen[place][1])
        return out

    def _written(self, some: Sequence[Example], draw: random.Random, number: int) -> list[tuple[Trajectory, Mixed]]:
        wheels, models, data = self._wheels, self._models, self._config.data
        generator = seeded(self._config.seed, number, draw.randrange(4_096), torch.device("cpu"))
        told = [self._restriction(draw) for _ in some]
        prompts = [self._prompt(one, restriction) for one, restriction in zip(some, told, strict=True)]
        served = [restriction is not None and draw.random() >= wheels.explored for restriction in told]
        allowed = torch.tensor([restriction is not None for restriction in told])
        noise = torch.tensor([0.0 if one else wheels.exploration for one in served])
        ask: Asker = never
        if models.help_id is not None:
            asks = by_help() if wheels.exploration == 0 else explored(noise, generator)

            def ask(looks: Any) -> Tensor:
                return asks(looks).cpu() & allowed[looks.rows]

        texts = mixed(
            models.student, models.teacher, prompts, [one.prompt for one in some], ask,
            limits=[min(wheels.max_new_tokens, data.context - len(prompt)) for prompt in prompts],
            eos=models.eos, pad_id=models.pad_id, vocabulary=models.vocabulary, help_id=models.help_id,
            segment=wheels.segment, top_k=wheels.top_k,
            temperature=1.0 if wheels.decoding == "sampling" else 0.0, generator=generator,
        )  # fmt: skip
        return [
            (
                Trajectory(
                    one.number, self._level(told[i]), tuple(prompts[i]), tuple(text.tokens), tuple(text.acted),
                    text.log_p, text.top_ids, text.top_log_p, text.ended, served[i], "student",
                ),
                text,
            )
            for i, (one, text) in enumerate(zip(some, texts, strict=True))
            if text.tokens
        ]  # fmt: skip

    def teachers(self, some: Sequence[Example], draw: random.Random) -> list[Trajectory]:
        """The teacher's own greedy texts for `some`."""
        models, found = self._models, []
        ordered = sorted(some, key=lambda one: (len(one.prompt), one.number))
        for begin in range(0, len(ordered), AT_ONCE):
            few = ordered[begin : begin + AT_ONCE]
            told = [self._restriction(draw) for _ in few]
            room = [self._config.data.context - len(self._prompt(one, r)) for one, r in zip(few, told, strict=True)]
            texts = written(
                models.teacher, [one.prompt for one in few],
                limits=[min(self._wheels.max_new_tokens, most) for most in room], eos=models.eos, pad_id=models.pad_id,
                vocabulary=models.vocabulary, temperature=0.0, generator=torch.Generator(),
            )  # fmt: skip
            found += self._off_policy(few, texts, told, "teacher")
        return found

    def read(self, some: Sequence[Example], draw: random.Random, *, held: bool = False) -> list[Trajectory]:
        """The data's texts for `some`; `held`: these are not among those whose teacher is kept."""
        told = [self._restriction(draw) for _ in some]
        return self._off_policy(some, [one.answer for one in some], told, "held" if held else "data")

    def _off_policy(
        self, some: Sequence[Example], texts: Sequence[Sequence[int]], told: Sequence[Restriction | None], source: str
    ) -> list[Trajectory]:
        """Texts that the student did not write, with what the teacher says of them."""
        models, cached = self._models, self._models.cached
        if not some:
            return []
        if cached is not None and source == "data":
            looks = []
            for one in some:
                ids, log_p = cached.of(Row((*one.prompt, *one.answer), len(one.prompt), one.number))
                looks.append((known_log_p(torch.tensor(one.answer), ids, log_p), ids, log_p))
        else:
            looks = looked_at(
                models.teacher, [one.prompt for one in some], texts, pad_id=models.pad_id,
                vocabulary=models.vocabulary, top_k=self._wheels.top_k,
            )  # fmt: skip
        return [
            Trajectory(
                one.number, self._level(restriction), tuple(self._prompt(one, restriction)), tuple(text),
                (NEITHER,) * len(text), log_p, ids, top, bool(text) and text[-1] == models.eos, False, source,
            )
            for one, text, restriction, (log_p, ids, top) in zip(some, texts, told, looks, strict=True)
            if len(text)
        ]  # fmt: skip

    # --- multipliers -------------------------------------------------------------------------------------------------

    def shares(self, found: Sequence[Trajectory]) -> list[float | None]:
        """Realised share of teacher tokens per level, over texts written as they would be served."""
        out: list[float | None] = []
        for index in range(len(self._wheels.levels)):
            mine = [one for one in found if one.served and one.level == index]
            tokens = sum(len(one.tokens) for one in mine)
            out.append(sum(one.asked_tokens for one in mine) / tokens if tokens else None)
        return out

    def _moved(self, number: int, served: Sequence[tuple[Trajectory, Mixed]]) -> Multiplier:
        """The multipliers after a round: a level's error is how many nats too low its price is, by the quantile of
        `<help>`'s score that its share asks for. An error in shares would say little where the score is far off."""
        wheels = self._wheels
        if self._models.help_id is None or not served:
            return self.state
        if number == 0:
            score = torch.cat([text.score[text.decisions] for _, text in served])
            lost = torch.cat([self._lost(one, text)[text.decisions] for one, text in served])
            state = prices_of(wheels.levels, score, lost)
        else:
            levels = np.asarray(wheels.levels)
            error = np.zeros(len(levels))
            for index, share in enumerate(wheels.levels):
                scores = [text.score[text.decisions] for one, text in served if one.level == index]
                if scores:
                    # A segment of k tokens is one decision.
                    part = share / (wheels.segment - share * (wheels.segment - 1))
                    error[index] = wheels.heat * float(torch.quantile(torch.cat(scores), 1 - part))
            # A student that does not read levels yet must not drive prices away meanwhile.
            error = error.clip(-FARTHEST, FARTHEST)
            state = update(self.state, levels + error, Gains(wheels.proportional, wheels.integral, wheels.derivative))
        if wheels.multipliers == "one":
            # One price for all.
            price, integral = (np.full_like(state.price, one.mean()) for one in (state.price, state.integral))
            state = Multiplier(state.budgets, price, integral, state.cost)
        return state

    def _lost(self, one: Trajectory, text: Mixed) -> Tensor:
        """(T,) what going on costs at each state; states that others stand for count with those."""
        wheels = self._wheels
        own, best = known_log_p(torch.tensor(text.own), text.top_ids, text.top_log_p), text.top_log_p[:, 0]
        if not wheels.judged:
            return -rewards(own, best, "regret", wheels.worst)
        lost = surer(own, best)
        if one.worth is None or one.weight is None:
            return lost * wheels.word
        return lost * (wheels.word + wheels.likeness * one.worth) * one.weight


def _alike(
    pool: Sequence[Any], count: int, length: Callable[[Any], int], place: float, draw: random.Random
) -> list[Any]:
    """`count` of `pool` of about one length: of four times as many, drawn by chance, a quarter that lies together when
    they are sorted, the one at `place` (0 to 1). Every one is as likely as any other."""
    count = min(count, len(pool))
    if not count:
        return []
    parts = min(4, len(pool) // count)
    some = sorted(draw.sample(range(len(pool)), parts * count), key=lambda at: (length(pool[at]), at))
    begin = min(int(place * parts), parts - 1) * count
    return [pool[at] for at in some[begin : begin + count]]
