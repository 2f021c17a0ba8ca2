"""Masked diffusion students: an ordinary decoder read in both directions, a sampler, base training."""
