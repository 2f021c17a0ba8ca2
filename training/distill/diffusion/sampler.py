"""Sampling from a masked diffusion model: from all MASK to none, in a chosen number of steps.

What a step reveals is drawn place by place, each independently of the others of that step, so which places share a step
decides how well they fit each other. Two orders:

`ancestral` (MDLM, 2406.07524): step t -> s leaves a masked place masked with probability s / t, which is to say that
chance gives each place one of the steps, all alike.

`dilated` (2506.19037): places of one step lie as far apart as there are steps, and each step falls between those before
it. What is drawn together is hardly related, and all steps have as many places. The offset is by chance.

The last step takes the likeliest tokens. Drawn in float64: in float32 the Gumbel noise is cut off, which lowers the
temperature unseen and flatters the model (2409.02908).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.distill.config import Order
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


def turns(steps: int) -> Tensor:
    """(steps,): the step of each residue class of places, so that every step falls between those before it."""
    bits = max(1, (steps - 1).bit_length())
    backwards = [int(f"{number:0{bits}b}"[::-1], 2) for number in range(steps)]
    return torch.tensor(backwards).argsort().argsort()


def dilated(places: Tensor, steps: int, substeps: int = 1) -> Tensor:
    """Places, counted from anywhere -> the sub-step, from 0 on, in which each is revealed by who takes `substeps` of
    them for each of `steps` steps. What a step reveals lies `steps` places apart; its sub-steps divide it likewise."""
    turn, within = turns(steps).to(places.device), turns(substeps).to(places.device)
    return turn[places % steps] * substeps + within[places // steps % substeps]


def revealed_at(count: int, length: int, steps: int, order: Order, generator: torch.Generator) -> Tensor:
    """(count, length): the step, from 0 on, in which each place is revealed."""
    if order == "ancestral":
        return torch.randint(steps, (count, length), generator=generator, device=generator.device)
    offset = torch.randint(steps, (count, 1), generator=generator, device=generator.device)
    return dilated(torch.arange(length, device=generator.device) + offset, steps)


def sample(
    denoiser: Denoiser,
    *,
    count: int,
    length: int,
    steps: int,
    generator: torch.Generator,
    order: Order = "ancestral",
    temperature: float = 1.0,
    prefix: Tensor | None = None,
) -> Sampled:
    """`prefix` (B, P) is given and stays. The network runs at most `steps` times: not for a step that reveals
    nothing."""
    if steps < 1:
        raise ValueError(f"{steps} steps; at least one is needed")
    device = next(denoiser.model.parameters()).device
    z = torch.full((count, length), denoiser.mask_id, dtype=torch.long, device=device)
    given = 0 if prefix is None else prefix.shape[1]
    if prefix is not None:
        z[:, :given] = prefix.to(device)
    at = torch.full((count, length), -1)
    at[:, given:] = revealed_at(count, length - given, steps, order, generator)
    at = at.to(device)
    found = torch.zeros(count, length, dtype=torch.float64, device=device)
    entropy, revealed = 0.0, 0
    was = denoiser.model.training
    denoiser.model.eval()
    try:
        for number in range(steps):
            here = at == number
            if not bool(here.any()):
                continue
            with torch.no_grad():
                log_x = denoiser.log_x(z, here).double()
            drawn = gumbel_draw(log_x, 0.0 if number == steps - 1 else temperature, generator)
            z[here] = drawn
            found[here] = log_x.gather(-1, drawn[:, None]).squeeze(-1)
            entropy += float(-(log_x.exp() * log_x.clamp_min(-1e4)).sum())
            revealed += len(log_x)
    finally:
        denoiser.model.train(was)
    return Sampled(z, found, entropy / max(1, revealed))
