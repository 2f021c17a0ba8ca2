"""Base training of a masked diffusion model: the weighted cross-entropy of what was masked."""

import torch
from torch import Tensor

from training.distill.batches import Batch
from training.distill.diffusion.model import Denoiser
from training.distill.lesson import Lesson
from training.distill.losses.diffusion import antithetic_times, base_loss, noised


def chance_of(seed: int, step: int, batch: Batch) -> torch.Generator:
    """Noise for one batch of one step; the same for a run that was resumed."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 65_537 + batch.packs[0][0].number)


class BaseLesson(Lesson):
    """The loss is the bound on the negative log-likelihood, in nats per token."""

    def __init__(self, denoiser: Denoiser, *, smallest_time: float, seed: int) -> None:
        super().__init__(denoiser.model)
        self._denoiser, self._smallest, self._seed = denoiser, smallest_time, seed

    def weight(self, batch: Batch) -> float:
        return float(batch.tokens.numel())

    def _bound(self, batch: Batch, step: int) -> Tensor:
        generator = chance_of(self._seed, step, batch)
        times = antithetic_times(len(batch.tokens), self._smallest, generator).to(batch.tokens.device)
        z, masked = noised(batch.tokens, times, self._denoiser.mask_id, generator)
        log_x = self._denoiser.log_x(z, masked)
        return base_loss(log_x, batch.tokens[masked], times[:, None].expand_as(z)[masked]).sum()

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return {"loss": self._bound(batch, step)}

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        # Several draws of one noise, the same at every validation, so that two validations can be compared.
        value = torch.stack([self._bound(batch, -1 - draw) for draw in range(4)]).mean()
        return {"nll": value, "weight": torch.tensor(self.weight(batch), device=value.device)}
