"""From a report to the sentence that an operator puts in the budget, with what these rows say it buys.

Shares are whole per cents, because that is how people write them. Where the rows do not show that asking pays, or that
the policy ranks better than chance, a note says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policies.prompt_features import Floats
from training.metrics import SHARES

LEVELS = (0.5, 0.8)
"""Parts of the gap between student and teacher; CPT50 and CPT80 are their shares."""
FEW_ROWS = 200


def shares_wanted(recovered: Floats) -> list[float]:
    """The smallest share, in whole per cents, that recovers each of LEVELS; PGR (101,). Fewer where one is not reached.

    A share of 1 is no budget, so it is left out.
    """
    found = [np.flatnonzero(recovered >= level - 1e-12) for level in LEVELS]
    return [float(SHARES[places[0]]) for places in found if len(places) and 0 < places[0] < len(SHARES) - 1]


def sentence(share: float) -> str:
    """The budget in the words that `tw budget parse` says back, for a share in whole per cents."""
    return f"At most {round(share * 100)}% of requests."


def budget_sentences(
    shares: Sequence[float], quality: Floats, recovered: Floats, intervals: tuple[Floats, Floats] | None
) -> list[dict[str, Any]]:
    """One entry per share: the sentence and what it buys, quality (101,) and PGR (101,) being given at SHARES.

    `intervals`: (S, 2) each, of quality and PGR at these shares; None where they were not taken.
    """
    found = []
    for i, share in enumerate(shares):
        place = round(share * 100)
        ends = (None, None) if intervals is None else tuple(_ends(each[i]) for each in intervals)
        found.append(
            {
                "sentence": sentence(share),
                "budget": round(share, 2),
                "quality": round(float(quality[place]), 6),
                "quality_ci95": ends[0],
                "pgr": round(float(recovered[place]), 6),
                "pgr_ci95": ends[1],
            }
        )
    return found


def _ends(interval: Floats) -> list[float] | None:
    return [round(float(end), 6) for end in interval] if np.isfinite(interval).all() else None


def notes(report: Mapping[str, Any]) -> list[str]:
    """What somebody should know before a budget is set by this report, a sentence each."""
    found = []
    gap = report["teacher_quality"] - report["student_quality"]
    if gap <= 0:
        best = max(report["curve"], key=lambda point: point["quality"] or 0.0)
        clear = best["quality_ci95"] is not None and best["quality_ci95"][0] > report["student_quality"]
        found.append(
            "The teacher is not better than the student on these rows, so asking everywhere is a waste."
            + (
                f" Asking where the policy says so raises quality from {report['student_quality']:.3f} to"
                f" {best['quality']:.3f} at {best['budget']:.0%} of the calls."
                if clear
                else ""
            )
        )
    elif report["apgr_ci95"] is None or report["apgr_ci95"][0] <= 0.5:
        found.append("These rows do not show that the policy ranks better than chance (APGR 0.5 is in its interval).")
    if report["rows"] < FEW_ROWS:
        found.append(f"Only {report['rows']} rows were measured on; the intervals say how little that tells.")
    return found
