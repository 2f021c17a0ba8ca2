"""A table with the columns that options of training add: sentences, and then what prefix caches hold, behind the
prompt's, samples behind the draft's.

The policy is given the same options (`Looks`), so that in service it reads what was read here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from policies.cached import CACHE_FEATURES, read_cached
from policies.features import draft_of, prompt_of
from policies.observation import Draft
from policies.outcomes import Outcome
from policies.prompt_features import read_prompt
from policies.samples import SampleWish, read_samples
from policies.sentences import Encoder, Sentences
from policies.wheels import Estimators
from training.dataset import Table
from training.sentences import fit_sentences, read_all


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What a policy looks at beside the plain features; by default at nothing."""

    sentences: Sentences | None = None
    samples: SampleWish | None = None
    cached: bool = False

    def given_to(self, estimators: Estimators) -> Estimators:
        return replace(estimators, sentences=self.sentences, samples=self.samples, cached=self.cached)

    def described(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "encoder": None if self.sentences is None else self.sentences.describe(),
            "samples": None if self.samples is None else self.samples.describe(),
            "cached": list(CACHE_FEATURES) if self.cached else None,
        }


def knows_cached(rows: Iterable[Outcome]) -> bool:
    """Whether any row says what a prefix cache held; a column of nulls is no column."""
    return any(row.student_cached_tokens is not None or row.teacher_cached_tokens is not None for row in rows)


def widen(
    table: Table,
    rows: Sequence[Outcome],
    *,
    encoder: Encoder | None = None,
    size: int = 0,
    samples: SampleWish | None = None,
    cached: bool = False,
    tick: Callable[[int], None] = lambda _: None,
) -> tuple[Table, Looks]:
    """The table with the columns asked for, and what the policy must look at to have them too.

    `rows` are the table's, in order; directions are fitted on the training split. `tick(n)`: n texts encoded.
    """
    sentences = None
    if encoder is not None:
        vectors = read_all(encoder, [prompt_of(row).last_user for row in rows], tick=tick)
        sentences = fit_sentences(encoder, vectors, table.split == "train", size)
        table = replace(table, prompt=np.hstack([table.prompt, sentences.project(vectors)]))
    if cached:
        held = np.stack([read_cached(prompt_of(row)) for row in rows])
        table = replace(table, prompt=np.hstack([table.prompt, held]))
    if samples is not None and table.draft is not None:
        read = [read_samples(draft_of(row) or Draft(""), samples, read_prompt(prompt_of(row))) for row in rows]
        table = replace(table, draft=np.hstack([table.draft, np.stack(read)]))
    return table, Looks(sentences, samples, cached)
