"""The trainable twin of `policies.wheels.StepNet`: the same sums in torch, written out as arrays when training ends."""

import math
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from policies.prompt_features import Floats
from policies.wheels import CLIP, StepNet


class TrainableStepNet(nn.Module):
    """Corrections start at zero: before training the policy is the blend of estimators that `skip` holds."""

    def __init__(
        self,
        features: Floats,
        skip: Floats,
        *,
        hidden: int,
        critic_hidden: int,
        generator: torch.Generator,
        sees_budget: bool = True,
    ) -> None:
        super().__init__()
        self.sees_budget = sees_budget
        count = features.shape[1]
        std = features.std(axis=0)
        # A feature that never moves in training (the turn of a conversation, in most tables) must neither explode nor
        # speak through weights that nothing has taught the first time that it does in service.
        still = torch.tensor(np.append(std < 1e-6, [False, False]))
        std[std < 1e-6] = 1.0
        self.register_buffer("mean", torch.tensor(features.mean(axis=0)))
        self.register_buffer("std", torch.tensor(std))
        self.skip = nn.Parameter(torch.tensor(skip))

        def weights(inputs: int, outputs: int) -> nn.Parameter:
            values = torch.randn(inputs, outputs, generator=generator, dtype=torch.float64)
            return nn.Parameter((values / math.sqrt(inputs)).masked_fill(still[:, None], 0.0))

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape, dtype=torch.float64))

        self.w1, self.b1 = weights(count + 2, hidden), zeros(hidden)
        self.w2, self.b2 = zeros(hidden, skip.shape[1]), zeros(skip.shape[1])
        self.cost_w1, self.cost_b1 = weights(count + 2, critic_hidden), zeros(critic_hidden)
        self.cost_w2, self.cost_b2 = zeros(critic_hidden, 1), zeros(1)

    def forward(self, features: Tensor, share: Tensor, price: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, F), (B,), (B,) -> quality, gain, correction (B, 2), expected cost as a fraction of the largest.

        With K teachers the gain is (B, K), and the correction (B, 1 + K).
        """
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        plain = features[:, : len(self.skip) - 1] @ self.skip[:-1] + self.skip[-1]
        standard = ((features - mean) / std).clamp(-CLIP, CLIP)
        budget = torch.stack([torch.log(share), price], dim=1)
        x = torch.cat([standard, budget if self.sees_budget else torch.zeros_like(budget)], dim=1)
        correction = torch.tanh(x @ self.w1 + self.b1) @ self.w2 + self.b2
        cost = torch.tanh(x @ self.cost_w1 + self.cost_b1) @ self.cost_w2 + self.cost_b2
        gain = plain[:, 1] if plain.shape[1] == 2 else plain[:, 1:]
        return plain[:, 0], gain, correction, torch.sigmoid(cost[:, 0])

    def groups(self, weight_decay: float, skip_rate: float) -> list[dict[str, object]]:
        """Parameter groups: the blend moves slowly, the first layers are held small."""
        return [
            {"params": [self.skip], "weight_decay": 0.0, "rate": skip_rate},
            {"params": [self.w1, self.w2], "weight_decay": weight_decay, "rate": 1.0},
            {"params": [self.b1, self.b2], "weight_decay": 0.0, "rate": 1.0},
            {"params": [self.cost_w1, self.cost_w2, self.cost_b1, self.cost_b2], "weight_decay": 1e-3, "rate": 3.0},
        ]

    def export(self) -> StepNet:
        names = [field.name for field in fields(StepNet)]
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        arrays = {name: state[name].detach().numpy().astype(np.float64).copy() for name in names}
        if not self.sees_budget:
            arrays["w1"][-2:] = arrays["cost_w1"][-2:] = 0.0
        return StepNet(**arrays)
