"""Rounds: the pair writes texts, the multipliers move, and the next steps learn from what was kept.

A round is written to disk when it is collected, with the multipliers after it, so that a run that was stopped goes on
with the same texts. Which texts a step sees depends on the seed and the step alone.
"""

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.constraint import Gains, Multiplier, start, update
from training.distill.config import DistillConfig
from training.distill.frame import seeded
from training.distill.wheels.mixing import Asker, always, by_help, explored, mixed, never
from training.distill.wheels.prompts import Example, restricted
from training.distill.wheels.restrictions import sampled
from training.distill.wheels.trajectories import (
    ASK,
    Trajectory,
    WheelsBatch,
    collate_trajectories,
    load_trajectories,
    save_trajectories,
)

AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Models:
    student: Any
    teacher: Any
    tokenizer: Any
    vocabulary: int
    help_id: int | None
    pad_id: int
    eos: int | None


def first_prices(levels: Sequence[float]) -> Multiplier:
    """Prices to begin with: what a text whose regret falls off exponentially would need."""
    shares = np.asarray(levels, dtype=np.float64)
    return start(shares, -0.9 * np.log(shares))


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
        tick: Callable[[str], None] = lambda _said: None,
    ) -> None:
        assert config.wheels is not None
        self._config, self._wheels, self._models = config, config.wheels, models
        self._examples, self._folder = list(examples), folder
        self._per_round = max(1, -(-steps // config.wheels.rounds))
        self._kept: dict[int, list[Trajectory]] = {}
        self._tick = tick
        self.state = first_prices(config.wheels.levels)
        self.history: list[dict[str, Any]] = []

    # --- batches -----------------------------------------------------------------------------------------------------

    def batch(self, step: int, micro: int, rank: int, world: int) -> WheelsBatch:
        number = step // self._per_round
        pool = [one for index in self._window(number) for one in self._round(index)]
        rows = self._config.training.rows
        draw = random.Random((self._config.seed * 1_000_003 + step) * 4_099 + micro * world + rank)
        some = draw.sample(pool, min(rows, len(pool)))
        return self.collated(some)

    def collated(self, some: Sequence[Trajectory]) -> WheelsBatch:
        prices = [0.0 if one.level is None else self.price(one.level) for one in some]
        models = self._models
        branches = models.help_id is not None and self._wheels.decoding == "greedy" and self._wheels.value
        return collate_trajectories(some, prices, pad_id=models.pad_id, eos=models.eos, branches=branches)

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
        count = min(wheels.trajectories, len(self._examples))
        some = self._chosen(number, count)
        off = round(wheels.off_policy * count)
        by_teacher = round(wheels.teacher_text * off)
        found = self.write(some[:by_teacher], "teacher", draw, number)
        found += self.write(some[by_teacher:off], "data", draw, number)
        found += self.write(some[off:], "student", draw, number)
        save_trajectories(file, found)
        state = self._moved(number, found)
        shares = self.shares(found)
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
        """The next `count` examples of an order that the seed gives."""
        size = len(self._examples)
        orders: dict[int, Any] = {}
        found = []
        for place in range(number * count, (number + 1) * count):
            epoch, index = divmod(place, size)
            if epoch not in orders:
                orders[epoch] = np.random.default_rng(self._config.seed * 1_009 + epoch).permutation(size)
            found.append(self._examples[int(orders[epoch][index])])
        return found

    def write(self, some: Sequence[Example], source: str, draw: random.Random, number: int) -> list[Trajectory]:
        """Texts of `source` for `some`, each under a restriction drawn anew. Long ones together."""
        found: list[Trajectory] = []
        ordered = sorted(some, key=lambda one: (len(one.prompt), one.number))
        for begin in range(0, len(ordered), AT_ONCE):
            found += self._written(ordered[begin : begin + AT_ONCE], source, draw, number)
        return found

    def _written(self, some: Sequence[Example], source: str, draw: random.Random, number: int) -> list[Trajectory]:
        wheels, models, data = self._wheels, self._models, self._config.data
        device = next(models.student.parameters()).device
        generator = seeded(self._config.seed, number, draw.randrange(4_096), torch.device("cpu"))
        told = []
        for _ in some:
            free = models.help_id is None or draw.random() < wheels.unrestricted
            told.append(None if free else sampled(wheels.levels, wheels.phrasings, draw))
        level = {share: index for index, share in enumerate(wheels.levels)}
        prompts = [restricted(one, told[i], data, models.tokenizer) for i, one in enumerate(some)]
        served = [
            source == "student" and told[i] is not None and draw.random() >= wheels.explored for i in range(len(some))
        ]
        allowed = torch.tensor([one is not None for one in told], device=device)
        noise = torch.tensor([0.0 if one else wheels.exploration for one in served])
        ask: Asker
        if source == "teacher":
            ask = always
        elif models.help_id is None:
            ask = never
        else:
            asks = by_help() if wheels.exploration == 0 else explored(noise, generator)

            def ask(looks: Any) -> Any:
                return asks(looks) & allowed

        texts = mixed(
            models.student, models.teacher, prompts, [one.prompt for one in some], ask,
            limits=[min(wheels.max_new_tokens, data.context - len(prompt)) for prompt in prompts],
            eos=models.eos, pad_id=models.pad_id, vocabulary=models.vocabulary, help_id=models.help_id,
            segment=wheels.segment, top_k=wheels.top_k,
            temperature=1.0 if wheels.decoding == "sampling" and source == "student" else 0.0,
            generator=generator,
            forced=[one.answer for one in some] if source == "data" else None,
        )  # fmt: skip
        found = []
        for i, (one, text) in enumerate(zip(some, texts, strict=True)):
            if not text.tokens:
                continue
            restriction = told[i]
            acted = self._relabelled(text, source, restriction is not None, draw)
            found.append(
                Trajectory(
                    one.number, None if restriction is None else level[restriction.share], tuple(prompts[i]),
                    tuple(text.tokens), tuple(text.own), acted, text.log_p, text.own_log_p, text.top_ids,
                    text.top_log_p, text.ended, served[i], source,
                )
            )  # fmt: skip
        return found

    def _relabelled(self, text: Any, source: str, asks: bool, draw: random.Random) -> tuple[int, ...]:
        """Of a text that was not written by asking: which actions could have led to it. Where both could, one is drawn,
        so that windows run over both."""
        if source == "student":
            return tuple(text.acted)
        best = text.top_ids[:, 0].tolist()
        if self._wheels.decoding == "sampling":
            return tuple([0] * len(text.tokens))
        acted = []
        for token, own, teachers in zip(text.tokens, text.own, best, strict=True):
            could_ask = asks and token == teachers and self._wheels.segment == 1
            could_go = token == own
            if could_ask and (not could_go or draw.random() < 0.3):
                acted.append(ASK)
            else:
                acted.append(0 if could_go else 3)
        return tuple(acted)

    # --- multipliers -------------------------------------------------------------------------------------------------

    def shares(self, found: Sequence[Trajectory]) -> list[float | None]:
        """Realised share of teacher tokens per level, over texts written as they would be served."""
        out: list[float | None] = []
        for index in range(len(self._wheels.levels)):
            mine = [one for one in found if one.served and one.level == index]
            tokens = sum(len(one.tokens) for one in mine)
            out.append(sum(one.asked_tokens for one in mine) / tokens if tokens else None)
        return out

    def _moved(self, number: int, found: Sequence[Trajectory]) -> Multiplier:
        wheels = self._wheels
        if self._models.help_id is None or number < 0.15 * wheels.rounds:
            # Shares say nothing yet while the student learns what `<help>` is for.
            return self.state
        levels = np.asarray(wheels.levels)
        cost = np.asarray([levels[i] if s is None else s for i, s in enumerate(self.shares(found))])
        if wheels.multipliers == "one":
            # One price for all: it sees the mean error only.
            cost = levels + (cost - levels).mean()
        gains = Gains(wheels.proportional, wheels.integral, wheels.derivative)
        state = self.state
        moved = update(state, cost, gains)
        if wheels.multipliers == "one":
            price = np.full_like(moved.price, moved.price.mean())
            moved = Multiplier(moved.budgets, price, moved.integral, moved.cost)
        return moved
