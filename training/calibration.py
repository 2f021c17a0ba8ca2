"""Sets the price of each budget so that what a policy spends, acting on the sign of its score, is the budget.

Where a draft costs something it also sets how sure the route step must be before it spares the draft.
"""

import math
from dataclasses import replace

import numpy as np

from policies.action import Step
from policies.prompt_features import Floats
from policies.wheels import Prices, WheelsPolicy
from training import constraint

NEVER = 1e4
"""A margin that no score exceeds, and that still is a number to calculate with."""


def spent(policy: WheelsPolicy, features: dict[Step, Floats], share: float) -> float:
    """Mean cost, in teacher calls, of acting on `score > 0` at a budget share."""
    at_route = policy.score_prepared(Step.ROUTE, features[Step.ROUTE], share) > 0
    if len(policy.steps) == 1:
        return float(at_route.mean())
    escalated = ~at_route & (policy.score_prepared(Step.DEFER, features[Step.DEFER], share) > 0)
    return float((at_route | escalated).mean() + policy.draft_cost * (~at_route).mean())


def calibrate(policy: WheelsPolicy, features: dict[Step, Floats]) -> WheelsPolicy:
    """Prices found by bisection so that acting greedily spends each knot's share on these rows (B, F per step).

    Training prices what the soft policy spends; the gateway acts on the sign of the score, which spends otherwise.
    """
    budgets = np.exp(policy.prices.log_share)
    found = np.zeros(len(budgets))
    for k, budget in enumerate(budgets):

        def cost(price: float, budget: float = float(budget)) -> float:
            flat = Prices(policy.prices.log_share, np.full(len(budgets), price))
            return spent(replace(policy, prices=flat), features, budget)

        low, high = 0.0, max(1.0, 2.0 / policy.scale)
        if cost(low) <= budget:
            continue
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if cost(middle) > budget else (low, middle)
        found[k] = high
    return replace(policy, prices=Prices(policy.prices.log_share, constraint.falling(found)))


MARGINS = (-2.0, -1.0, -0.5, -0.2, 0.0, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, NEVER)
"""Tried as what the score at the route step must exceed, below zero where drafts tell little; the last one: never."""
PARTS = 10
"""Of the rows, whose spread says how sure a margin's worth is."""


def hold_back(policy: WheelsPolicy, features: dict[Step, Floats], gain: Floats) -> WheelsPolicy:
    """The policy with the margin at its route step that wins most over all total costs, on these rows.

    Trained values of reading a draft are rough, and asking too early loses more than a draft costs; `gain` (B,) is what
    the teacher adds, and rows come out of fold. Without a cost of drafts, or without drafts, nothing changes.
    """
    if len(policy.steps) == 1 or policy.draft_cost == 0.0:
        return policy
    scores = [
        [policy.score_prepared(step, features[step], float(share)) for step in (Step.ROUTE, Step.DEFER)]
        for share in np.exp(policy.prices.log_share)
    ]
    costs = np.linspace(policy.draft_cost, 1.0, 101)

    def won(margin: float, part: slice) -> float:
        points = [(policy.draft_cost, 0.0)]
        for route, defer in scores:
            at_route = route[part] > margin
            asked = at_route | (defer[part] > 0)
            points.append((asked.mean() + policy.draft_cost * (~at_route).mean(), (gain[part] * asked).mean()))
        cost, quality = np.array(sorted(points)).T
        return float(np.interp(costs, cost, quality).mean())

    count = min(PARTS, len(gain))
    parts = [slice(first, None, count) for first in range(count)]
    better = {each: np.array([won(each, part) - won(NEVER, part) for part in parts]) for each in MARGINS}
    margin = max(MARGINS, key=lambda each: (better[each].mean(), each))
    if better[margin].mean() <= 2.0 * better[margin].std() / math.sqrt(count):
        # Reading the draft is the safer of two, so sparing it must be better by more than chance.
        margin = NEVER
    net = policy.nets[Step.ROUTE]
    held = replace(net, b2=net.b2 + np.eye(len(net.b2))[0] * (margin * policy.temperature))
    return calibrate(replace(policy, nets={**policy.nets, Step.ROUTE: held}), features)
