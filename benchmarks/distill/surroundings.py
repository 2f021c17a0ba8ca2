"""Clock, progress on standard error, and stopping, for runs in the background."""

import sys
import time
from typing import Any

from training.distill.frame import Surroundings


def surroundings(name: str) -> Surroundings:
    """One line every half minute, so that a log says where a run is."""
    from accelerate import Accelerator  # type: ignore[import-untyped]

    said = [time.monotonic()]

    def tick(done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if now - said[0] > 30 or done == total:
            said[0] = now
            print(f"{time.strftime('%H:%M:%S')} {name}: {done}/{total} {note}", file=sys.stderr, flush=True)

    accelerator: Any = Accelerator()
    # Seconds of the processor, not of the wall: other programs may run beside, and arms are compared by cost.
    return Surroundings(time.process_time, tick, lambda: False, accelerator)
