"""The features of an observation: one implementation for serving and training.

`FEATURES_HASH` goes into every artifact; weights fitted on other features are refused at loading, because numbers at
the wrong places would score quietly and wrongly.
"""

import hashlib

from policies.draft_features import DRAFT_FEATURES, entropy_of, read_draft
from policies.observation import Draft, Prompt
from policies.outcomes import Outcome
from policies.prompt_features import FEATURES_VERSION, NGRAM_BITS, PROMPT_FEATURES, PromptView, read_prompt

__all__ = [
    "DRAFT_FEATURES",
    "FEATURES_HASH",
    "FEATURES_VERSION",
    "PROMPT_FEATURES",
    "PromptView",
    "draft_of",
    "entropy_of",
    "prompt_of",
    "read_draft",
    "read_prompt",
]


def _hash() -> str:
    text = "\n".join([str(FEATURES_VERSION), str(NGRAM_BITS), *PROMPT_FEATURES, "", *DRAFT_FEATURES])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


FEATURES_HASH = _hash()


def prompt_of(outcome: Outcome) -> Prompt:
    """The observation's prompt for a row of an outcome table."""
    return Prompt(
        text=outcome.prompt,
        last_user=outcome.last_user,
        turn=outcome.turn,
        student_cached_tokens=outcome.student_cached_tokens,
        teacher_cached_tokens=outcome.teacher_cached_tokens,
    )


def draft_of(outcome: Outcome) -> Draft | None:
    """The observation's draft for a row; None where the row has no student response."""
    if outcome.student_response is None:
        return None
    return Draft(
        text=outcome.student_response,
        logprobs=outcome.student_logprobs or (),
        entropies=outcome.student_entropies or (),
        finish_reason=outcome.student_finish_reason,
        samples=outcome.student_samples or (),
    )
