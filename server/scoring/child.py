"""The scoring process: loads one policy, then answers batches until the worker hangs up.

python -m server.scoring.child --artifact DIR --socket FD [--nice N]
"""

import argparse
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

for _library in ("OMP", "OPENBLAS", "MKL"):  # before numpy: matrices of a few rows only lose time to threads
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

from policies.artifact import ArtifactError, load_policy  # noqa: E402
from policies.observation import Observation  # noqa: E402
from policies.policy import BatchPolicy, NeedsWarming, Policy, Scores  # noqa: E402
from server.frames import MOST_READ, Frames, frame  # noqa: E402
from server.lifetime import die_with_parent  # noqa: E402
from server.scoring.scorer import samples_of, typical_of  # noqa: E402
from server.scoring.wire import observation_of, outcome_row  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One policy, answering over a socket. `tw serve` starts it.")
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--socket", type=int, required=True, metavar="FD")
    parser.add_argument("--nice", type=int, default=0, help="Lower priority, for a policy that no answer waits for.")
    options = parser.parse_args(arguments)
    die_with_parent()
    if options.nice:
        os.nice(options.nice)
    # Ctrl-C in a terminal reaches the whole group; the worker decides when its last request is answered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The worker may be gone, or have given up on this process, before anything is said.
    with socket.socket(fileno=options.socket) as line, contextlib.suppress(ConnectionError):
        try:
            policy = load_policy(options.artifact)
            if isinstance(policy, NeedsWarming):
                policy.warm()
        except ArtifactError as error:
            line.sendall(frame({"error": str(error)}))
            return 1
        wish = samples_of(policy)
        line.sendall(
            frame(
                {
                    "name": policy.name,
                    "version": policy.version,
                    "steps": [step.value for step in policy.steps],
                    "typical": typical_of(policy),
                    "together": getattr(policy, "most_together", None),
                    "samples": None if wish is None else wish.describe(),
                }
            )
        )
        # What was loaded stays for good, so the garbage collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        serve(line, policy)
    return 0


def serve(line: socket.socket, policy: Policy) -> None:
    """Until the other side closes. Raises ConnectionError where it breaks off."""
    frames = Frames()
    together = policy if isinstance(policy, BatchPolicy) else None  # once: the look at a protocol costs 20 us
    while True:
        data = line.recv(MOST_READ)
        if not data:
            return
        for rows in frames.feed(data):
            outcomes = score_all(policy, together, [observation_of(row) for row in rows])
            line.sendall(frame([outcome_row(outcome) for outcome in outcomes]))


def score_all(
    policy: Policy, together: BatchPolicy | None, observations: Sequence[Observation]
) -> list[Scores | Exception]:
    """One outcome each; an observation that makes the policy raise costs the others nothing. `together`: the policy
    where it can score several at once."""
    if together is not None:
        try:
            return list(together.score_batch(observations))
        except Exception:
            if len(observations) > 1:
                return [outcome for each in observations for outcome in score_all(policy, together, [each])]
    outcomes: list[Scores | Exception] = []
    for observation in observations:
        try:
            outcomes.append(policy.score(observation))
        except Exception as error:
            outcomes.append(error)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
