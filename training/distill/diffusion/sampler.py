"""Ancestral sampling (MDLM, 2406.07524): from all MASK to none, in a chosen number of steps.

Step t -> s: a masked place stays masked with probability s / t, else its token is drawn from the model; the last step
fills what is left with the likeliest tokens. Drawn in float64: in float32 the Gumbel noise is cut off, which lowers the
temperature unseen and flatters the model (2409.02908).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.distill.diffusion.model import Denoiser


@dataclass(frozen=True, slots=True)
class Sampled:
    """`tokens` (B, L); `log_probabilities` (B, L): of each token when it was revealed, 0 where it was given; `entropy`:
    mean entropy in nats of the distributions that tokens were revealed from."""

    tokens: Tensor
    log_probabilities: Tensor
    entropy: float


def gumbel_draw(log_x: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """(M, V) -> (M,) one token each, by the Gumbel-max trick in float64."""
    if temperature == 0.0:
        return log_x.argmax(-1)
    waiting = torch.empty(log_x.shape, dtype=torch.float64, device=generator.device).exponential_(generator=generator)
    gumbel = -torch.log(waiting.clamp_min(1e-300))
    return (log_x.double() / temperature + gumbel.to(log_x.device)).argmax(-1)


def sample(
    denoiser: Denoiser,
    *,
    count: int,
    length: int,
    steps: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    prefix: Tensor | None = None,
) -> Sampled:
    """`prefix` (B, P) is given and stays. `steps` is the number of times that the network runs."""
    if steps < 1:
        raise ValueError(f"{steps} steps; at least one is needed")
    device = next(denoiser.model.parameters()).device
    z = torch.full((count, length), denoiser.mask_id, dtype=torch.long, device=device)
    if prefix is not None:
        z[:, : prefix.shape[1]] = prefix.to(device)
    found = torch.zeros(count, length, dtype=torch.float64, device=device)
    entropy, revealed = 0.0, 0
    was = denoiser.model.training
    denoiser.model.eval()
    try:
        for number in range(steps):
            masked = z == denoiser.mask_id
            if not bool(masked.any()):
                break
            with torch.no_grad():
                log_x = denoiser.log_x(z, masked).double()
            t, last = 1.0 - number / steps, number == steps - 1
            s = 0.0 if last else t - 1.0 / steps
            drawn = gumbel_draw(log_x, 0.0 if last else temperature, generator)
            chance = torch.rand(len(drawn), generator=generator, dtype=torch.float64, device=generator.device)
            reveal = (chance >= s / t).to(device)
            places = masked.nonzero()[reveal]
            z[places[:, 0], places[:, 1]] = drawn[reveal]
            known = log_x[reveal]
            found[places[:, 0], places[:, 1]] = known.gather(-1, drawn[reveal][:, None]).squeeze(-1)
            entropy += float(-(known.exp() * known.clamp_min(-1e4)).sum())
            revealed += len(known)
    finally:
        denoiser.model.train(was)
    return Sampled(z, found, entropy / max(1, revealed))
