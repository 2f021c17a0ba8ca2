"""What would decide instead: scores for every recorded request, of the policy that was logged or of another one."""

from dataclasses import dataclass, replace

import numpy as np

from policies.action import Step
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Policy
from policies.prompt_features import Floats
from training.recorded_traffic import Recorded


class CannotScore(ValueError):
    """The log does not hold what the policy wants to see. The message says what to switch on."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Scores (N,), NaN where the step is not asked or the draft is not known."""

    version: str
    first: Floats
    second: Floats
    features: Floats
    """(N, F) numbers that may tell how good an answer will be."""
    prior: Floats
    """(N, 2) quality that the policy expects of student and teacher; NaN where it says nothing."""
    as_logged: bool
    notes: tuple[str, ...] = ()


def as_logged(traffic: Recorded) -> Candidate:
    """The policy of the log, by the scores in the log. No text is needed."""
    count = len(traffic)
    details = [row.steps[0].details if row.steps else {} for row in traffic.rows]
    last = [row.steps[-1].details if row.steps else {} for row in traffic.rows]
    one_step = not traffic.two_steps.any()
    prior = _prior(last if one_step else details)
    first, second = traffic.first, traffic.second
    notes: list[str] = []
    shares = np.array([row.budget_share for row, routed in zip(traffic.rows, traffic.routed, strict=True) if routed])
    gains = np.array([each.get("expected_gain", np.nan) for each in last])
    if one_step and len(shares) and np.ptp(shares) > 1e-9 and not np.isnan(gains[traffic.routed]).any():
        # The score holds the price of the share at that moment; the expected gain does not.
        gains = _in_units_of_scores(np.fmax(first, second), gains, np.array([each.get("price", 0.0) for each in last]))
        first = np.where(np.isnan(first), np.nan, gains)
        second = np.where(np.isnan(second), np.nan, gains)
        notes.append("The budget moved while the log was written, so requests are ranked by the gain expected.")
    elif len(shares) and np.ptp(shares) > 1e-9:
        notes.append("The budget moved while the log was written; scores of different budgets are ranked together.")
    score = np.nan_to_num(np.where(np.isnan(traffic.first), traffic.second, traffic.first))
    features = np.column_stack([score, np.nan_to_num(prior), np.zeros((count, 0))])
    versions = sorted({row.policy_version for row in traffic.rows if row.steps})
    return Candidate(", ".join(versions), first, second, features, prior, as_logged=True, notes=tuple(notes))


def with_policy(traffic: Recorded, policy: Policy, share: float) -> Candidate:
    """Another policy, asked anew about the logged text at one budget share. Raises CannotScore."""
    logged = as_logged(traffic)
    reads_drafts = Step.DEFER in policy.steps
    _check_text(traffic, reads_drafts)
    count = len(traffic)
    first, second = np.full(count, np.nan), np.full(count, np.nan)
    details: list[dict[str, float]] = [{} for _ in range(count)]
    state = BudgetState(share=share)
    for i, row in enumerate(traffic.rows):
        if not traffic.routed[i]:
            continue
        text = row.prompt or ""
        held = {name: getattr(row, name) for name in ("student_cached_tokens", "teacher_cached_tokens")}
        prompt = Prompt(text=text, last_user=text, **held)
        if Step.ROUTE in policy.steps:
            scores = policy.score(Observation(Step.ROUTE, prompt, None, state))
            first[i], details[i] = scores.score, scores.details
        if reads_drafts and row.student_response is not None:
            draft = Draft(row.student_response, row.student_logprobs or ())
            scores = policy.score(Observation(Step.DEFER, prompt, draft, state))
            second[i] = scores.score
            if not traffic.two_steps.any():
                details[i] = scores.details
    prior = _prior(details)
    own = np.nan_to_num(np.where(np.isnan(first), second, first))
    notes = ["Prompts are logged as one text, so a conversation is scored as if it were a single message."]
    if reads_drafts and any(
        row.student_logprobs and row.student_tokens > len(row.student_logprobs) for row in traffic.rows
    ):
        notes.append("Some drafts were judged in part while they streamed; here the whole text is judged.")
    return replace(
        logged,
        version=policy.version,
        first=first,
        second=second,
        features=np.column_stack([logged.features, own, np.nan_to_num(prior)]),
        prior=np.where(np.isnan(prior), logged.prior, prior),
        as_logged=False,
        notes=tuple(notes),
    )


def _check_text(traffic: Recorded, reads_drafts: bool) -> None:
    routed = [row for row, routed in zip(traffic.rows, traffic.routed, strict=True) if routed]
    without = sum(row.prompt is None for row in routed)
    if without:
        raise CannotScore(
            f"{without} of {len(routed)} requests were logged without their prompt, so another policy cannot be scored "
            "on them. Switch log_text on (tw serve with log_text = true) and let some traffic come. "
            "Another budget for the same policy needs no text: leave --policy out"
        )
    one_step = [
        row
        for row, routed, two in zip(traffic.rows, traffic.routed, traffic.two_steps, strict=True)
        if routed and not two
    ]
    undrafted = sum(row.student_response is None for row in one_step)
    if reads_drafts and undrafted:
        raise CannotScore(
            f"the policy reads the student's draft, and {undrafted} of {len(routed)} requests were logged "
            "without one. Give a policy that decides by the prompt, or log traffic of a policy that reads drafts"
        )


def _in_units_of_scores(score: Floats, gain: Floats, price: Floats) -> Floats:
    """score = (gain - price) / unit: the unit by least squares, and the price of the average moment for all."""
    scored = ~np.isnan(score)
    unit = float((score[scored] * (gain - price)[scored]).sum()) / max(float((score[scored] ** 2).sum()), 1e-12)
    out: Floats = (gain - price[scored].mean()) / (unit if unit > 0 else 1.0)
    return out


def _prior(details: list[dict[str, float]]) -> Floats:
    student = np.array([each.get("expected_student_quality", np.nan) for each in details], dtype=np.float64)
    gain = np.array([each.get("expected_gain", np.nan) for each in details], dtype=np.float64)
    return np.clip(np.column_stack([student, student + gain]), 0.0, 1.0)
