"""What a worker and its scoring process say to each other, in `server.frames`.

worker  -> child   [[observation, ...]]            one frame, one batch; what prefix caches hold stands behind an
                   observation only where it is known, so that without it rows are what they were
child   -> worker  [[score, {detail: number}], ...] in order; [null, "why"] where the policy raised; of a policy that
                   knows several teachers [score, {...}, [[name, score, gain, usd, most_usd], ...]]
child   -> worker  {"name", "version", "steps", "typical", "samples", "together"} or {"error"}: the first frame, once
"""

import math
from collections.abc import Sequence
from typing import Any

from policies.action import Step
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Scores, TeacherScore
from server.frames import frame

_STEPS = {step.value: step for step in Step}


def observation_row(observation: Observation) -> list[Any]:
    prompt, draft, budget = observation.prompt, observation.draft, observation.budget
    # Mostly the last message is the text or its end; sending it twice would double the frame.
    last: str | int = len(prompt.last_user) if prompt.text.endswith(prompt.last_user) else prompt.last_user
    drafted = (
        None
        if draft is None
        else [draft.text, draft.logprobs, draft.entropies, draft.finish_reason, draft.complete, *draft.samples]
    )
    row = [
        observation.step.value, prompt.text, last, prompt.turn, prompt.last_route, drafted, budget.share, budget.left
    ]  # fmt: skip
    student, teacher = prompt.student_cached_tokens, prompt.teacher_cached_tokens
    return row if student is None and teacher is None else [*row, student, teacher]


def observation_of(row: Sequence[Any]) -> Observation:
    step, text, last, turn, last_route, drafted, share, left, *cached = row
    last_user = text[len(text) - last :] if isinstance(last, int) else last
    draft = None
    if drafted is not None:
        words, logprobs, entropies, finish_reason, complete, *samples = drafted
        draft = Draft(words, tuple(logprobs), tuple(entropies), finish_reason, complete, tuple(samples))
    # Rows may come to have more behind these: from whoever sends more than is known here.
    prompt = Prompt(text, last_user, turn, last_route, *cached[:2])
    return Observation(_STEPS[step], prompt, draft, BudgetState(share, left))


def batch_frame(observations: Sequence[Observation]) -> bytes:
    """Lone surrogates, which no JSON may hold, become question marks."""
    rows = [observation_row(observation) for observation in observations]
    try:
        return frame(rows)
    except TypeError:
        return frame([_without_surrogates(row) for row in rows])


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return [_without_surrogates(each) for each in value]
    return value


def outcome_row(outcome: Scores | Exception) -> list[Any]:
    if isinstance(outcome, Exception):
        return [None, f"{type(outcome).__name__}: {outcome}"[:300]]
    if not math.isfinite(outcome.score):  # no JSON, and nothing that could be ranked
        return [None, f"the score is {outcome.score}"]
    if not outcome.teachers:
        return [outcome.score, outcome.details]
    teachers = [[each.name, each.score, each.gain, each.usd, each.most_usd] for each in outcome.teachers]
    return [outcome.score, outcome.details, teachers]


def scores_of(row: Sequence[Any]) -> Scores:
    """Of a row whose first entry is a number. Raises ValueError, TypeError."""
    score, details, *several = row
    if not several:
        return Scores(score, details)
    return Scores(score, details, tuple(TeacherScore(*each) for each in several[0]))
