"""A table with the columns that options of training add: sentences behind the prompt's, samples behind the draft's.

The policy is given the same options (`Looks`), so that in service it reads what was read here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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

    def given_to(self, estimators: Estimators) -> Estimators:
        return replace(estimators, sentences=self.sentences, samples=self.samples)

    def described(self) -> dict[str, dict[str, Any] | None]:
        """For the manifest."""
        return {
            "encoder": None if self.sentences is None else self.sentences.describe(),
            "samples": None if self.samples is None else self.samples.describe(),
        }


def widen(
    table: Table,
    rows: Sequence[Outcome],
    *,
    encoder: Encoder | None = None,
    size: int = 0,
    samples: SampleWish | None = None,
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
    if samples is not None and table.draft is not None:
        read = [read_samples(draft_of(row) or Draft(""), samples, read_prompt(prompt_of(row))) for row in rows]
        table = replace(table, draft=np.hstack([table.draft, np.stack(read)]))
    return table, Looks(sentences, samples)
