"""What this processor is good at."""

import time

import torch


def bfloat16_slowdown(size: int = 256, tries: int = 5) -> float:
    """How many times as long a product of two (size, size) matrices takes in bfloat16 as in float32: below 1 where the
    processor computes in bfloat16, tens where it is emulated. The best of `tries`, a quarter of a second at most."""
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(size, size, dtype=dtype)
        times = []
        for _ in range(tries + 1):
            began = time.process_time()
            matrix @ matrix
            times.append(time.process_time() - began)
        # The first one chooses its kernel.
        best[dtype] = min(times[1:])
    return best[torch.bfloat16] / best[torch.float32]
