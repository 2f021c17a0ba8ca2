"""Sets the price of each budget so that what a policy spends, acting on the sign of its score, is the budget."""

from dataclasses import replace

import numpy as np

from policies.action import Step
from policies.prompt_features import Floats
from policies.wheels import Prices, WheelsPolicy
from training import constraint


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
