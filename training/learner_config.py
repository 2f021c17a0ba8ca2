"""The settings of the learner, kept in every manifest."""

from dataclasses import dataclass, field

from training import constraint
from training.estimators import EstimatorConfig


@dataclass(frozen=True, slots=True)
class PathConsistencyConfig:
    steps: int = 1200
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.3
    """AdamW's, on the weights of the correcting network."""
    skip_rate: float = 0.1
    """The blend's learning rate as a part of the network's."""
    hidden: int = 32
    critic_hidden: int = 16
    temperature: float = 0.5
    """In units of the spread of the expected gain."""
    discount: float = 1.0
    on_policy: float = 0.5
    """The part of each batch that the current policy rolls out; the rest takes every branch."""
    relabel: float = 0.3
    trust: float = 0.0
    """Trust-PCL's weight on log pi - log of a lagged pi; 0 switches it off."""
    lag: float = 0.98
    least_share: float = 0.01
    only_share: float | None = None
    """Train for this budget alone; None: for all of them."""
    sees_budget: bool = True
    """Whether the networks are shown share and price; without, the policy has one ranking for all budgets."""
    knots: int = 17
    draft_cost: float = 0.0
    """What a draft costs, in teacher calls."""
    critic_weight: float = 0.3
    doubt: float = 1.5
    """Standard errors by which the validation rows must bear out what training adds to the blend."""
    evaluate_every: int = 50
    checkpoint_every: int = 200
    seed: int = 0
    gains: constraint.Gains = field(default_factory=constraint.Gains)
    estimators: EstimatorConfig = field(default_factory=EstimatorConfig)
