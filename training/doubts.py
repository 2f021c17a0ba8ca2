"""Whether a log can answer what is asked of it, in words that say what to do."""

import math
from dataclasses import dataclass

import numpy as np

from router.budget import Budget
from training.decision_rows import DecisionRows
from training.off_policy import effective_sample_size, largest_part
from training.recorded_traffic import Recorded
from training.what_if import MOST_UNSUPPORTED, Evidence, Valued

LEAST_SAMPLE = 50.0
"""Effective sample size below which an interval is not to be leaned on."""
MOST_UNKNOWN = 0.01
LEAST_PROPENSITY = 0.01
MOST_WEIGHT = 0.1
MUCH = 0.05


@dataclass(frozen=True, slots=True)
class Doubt:
    code: str
    message: str

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


def answerable(evidence: Evidence, valued: Valued) -> bool:
    """Whether the interval of the quality may be leaned on."""
    return not {"no_qualities", "no_exploration", "too_different"} & {each.code for each in _overlap(evidence, valued)}


def doubts(evidence: Evidence, valued: Valued, budget: Budget) -> list[Doubt]:
    """Everything that speaks against the estimate, the gravest first."""
    return [*_overlap(evidence, valued), *_missing(evidence), *_replayed(evidence.traffic, valued, budget)]


def _overlap(evidence: Evidence, valued: Valued) -> list[Doubt]:
    traffic = evidence.traffic
    known = evidence.known.known
    found: list[Doubt] = []
    if not known.any():
        return [
            Doubt(
                "no_qualities",
                "No quality is known, so only shares and costs can be said. Send POST /v1/feedback for some of the "
                "answers; every tenth is a good beginning.",
            )
        ]
    gap = valued.gap
    if gap > MOST_UNSUPPORTED:
        found.append(
            Doubt(
                "no_exploration",
                f"{gap:.1%} of the requests would go another way than they did, and nothing was left to chance when "
                "they were routed: what the other answer is worth was never seen. The interval holds whatever it might "
                'be. Add "Try 5% at random." to the budget, so that the next log can answer.',
            )
        )
    weight = np.where(known, valued.weighed.weight, 0.0)
    size = effective_sample_size(weight)
    if size < LEAST_SAMPLE:
        found.append(
            Doubt(
                "too_different",
                f"What is asked about is too different from what was done: the known qualities say as much about it as "
                f"{size:.0f} requests would (at least {LEAST_SAMPLE:.0f} are wanted). Ask about something nearer, "
                "collect more traffic or feedback, or let more be tried at random.",
            )
        )
    part = largest_part(weight)
    if part > MOST_WEIGHT and size >= LEAST_SAMPLE:
        found.append(Doubt("heavy_weights", f"One single request carries {part:.0%} of the weight."))
    used = traffic.routed & (valued.weighed.weight > 0)
    rare = int((traffic.chance[used] < LEAST_PROPENSITY).sum()) if used.any() else 0
    if rare:
        found.append(
            Doubt(
                "small_propensities",
                f"{rare} of the choices that count had a chance below {LEAST_PROPENSITY:.0%} (the least "
                f"{traffic.chance[used].min():.2g}), so each weighs a hundred times or more. More exploration makes "
                "such estimates steadier.",
            )
        )
    return found


def _missing(evidence: Evidence) -> list[Doubt]:
    traffic, known = evidence.traffic, evidence.known.known
    found: list[Doubt] = []
    counted = int(known.sum())
    if 0 < counted < 2 * LEAST_SAMPLE:
        found.append(Doubt("few_qualities", f"Only {counted} qualities are known."))
    lost = evidence.known.lost(np.ones(len(traffic)))
    if counted and lost > MOST_UNKNOWN:
        found.append(
            Doubt("side_without_qualities", f"No quality is known of a kind of answer that makes up {lost:.0%} of all.")
        )
    asked = traffic.routed & traffic.asks & ~traffic.refused
    kept = traffic.routed & ~traffic.asks
    if counted and asked.any() and kept.any():
        one, other = float(known[asked].mean()), float(known[kept].mean())
        both = (known[asked].sum() + known[kept].sum()) / (asked.sum() + kept.sum())
        noise = math.sqrt(max(both * (1 - both), 1e-12) * (1 / asked.sum() + 1 / kept.sum()))
        if abs(one - other) > max(3 * noise, 0.02):
            found.append(
                Doubt(
                    "feedback_depends_on_the_answerer",
                    f"Qualities are known of {one:.0%} of the teacher's answers and of {other:.0%} of the student's. "
                    "This is reckoned with; but if people judge the good or the bad answers rather than any, no "
                    "estimate from this log is right.",
                )
            )
    return found


def _replayed(traffic: Recorded, valued: Valued, budget: Budget) -> list[Doubt]:
    paths, count = valued.paths, len(traffic)
    found: list[Doubt] = []
    if paths.refused > max(MUCH * float(paths.asks.sum()), 1.0):
        way = {"student": "the student answers", "queue": "they wait (here: the student answers)"}
        found.append(
            Doubt(
                "refusals",
                f"The ledger would refuse {paths.refused:.0f} teacher calls; "
                + way.get(budget.when_exhausted, "those requests get an error, and their quality counts as 0")
                + ".",
            )
        )
    if paths.fixed_refused >= 1:
        found.append(
            Doubt(
                "fixed_calls_refused",
                f"{paths.fixed_refused:.0f} of them were asked for by clients or rules; in the quality they stand as "
                "they were answered then.",
            )
        )
    if traffic.refused.sum() > MUCH * max(int(traffic.asks.sum()), 1):
        found.append(
            Doubt(
                "logged_refusals",
                f"When the log was written {int(traffic.refused.sum())} teacher calls were refused; what those answers "
                "would have been worth is taken to be like that of other calls with such scores.",
            )
        )
    text_rules = [rule for rule in budget.rules if rule.when.tag is None and rule.when.key_group is None]
    if text_rules and any(row.prompt is None for row in traffic.rows):
        found.append(
            Doubt("rules_without_text", "The budget has rules about text, and the log holds none: they match nothing.")
        )
    if any(rule.when.header is not None for rule in budget.rules):
        found.append(Doubt("rules_about_headers", "Headers are not logged: rules about them match nothing here."))
    versions = {row.policy_version for row, routed in zip(traffic.rows, traffic.routed, strict=True) if routed}
    if len(versions) > 1:
        found.append(
            Doubt(
                "several_policies",
                f"The log holds the decisions of {len(versions)} policies, whose scores are ranked together. "
                "Without --policy the answer is about the mixture.",
            )
        )
    if count < 200:
        found.append(Doubt("few_requests", f"Only {count} requests: pacing has hardly settled by then."))
    return found


def notes(evidence: Evidence, budget: Budget, log: DecisionRows | None) -> list[str]:
    """How the numbers were made, where that is not the same for every log."""
    traffic = evidence.traffic
    said = ["Intervals are for traffic like this log's (95%)."]
    unknown = int((~evidence.known.known & ~traffic.refused).sum())
    if unknown and evidence.known.known.any():
        said.append(
            f"{unknown} qualities are unknown; they are taken to be missing at random among requests with the same "
            "side and a like score."
        )
    if traffic.fixed_because:
        kinds = ", ".join(f"{count}: {why}" for why, count in sorted(traffic.fixed_because.items()))
        said.append(f"Requests that no policy decided are kept as they were ({kinds}).")
    if traffic.left_out_because:
        kinds = ", ".join(f"{count}: {why}" for why, count in sorted(traffic.left_out_because.items()))
        said.append(f"Left out ({kinds}).")
    if traffic.two_steps.any():
        said.append(
            "Two decisions per request: where the teacher was asked at once, the score that the draft would have had "
            "is filled in from the request nearest to it, for the share and the cost only."
        )
    if budget.explore is None:
        said.append("The budget says nothing of exploration, so none is replayed.")
    if log is not None and log.torn_lines:
        said.append(f"{log.torn_lines} torn lines were passed over.")
    return [*said, *evidence.candidate.notes]
