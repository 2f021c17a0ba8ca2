"""Peak memory of the distillation loss at a vocabulary of 150,000: whole logits, blocks of tokens, blocks of words.

Each is run in a process of its own on Linux, whose peak resident memory says what it took; what lies there before is
taken off.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys, time, torch
from training.distill.losses.blocks import Head, by_blocks
from training.distill.losses.divergence import divergence, log_probabilities
from training.distill.losses.vocabulary import vocabulary_divergence
way, tokens, vocabulary = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
s = torch.randn(tokens, 64, generator=g).requires_grad_()
w = (torch.randn(vocabulary, 64, generator=g) / 8).requires_grad_()
t, v = torch.randn(tokens, 96, generator=g), torch.randn(vocabulary, 96, generator=g) / 8
ours, theirs = Head(w, None, vocabulary), Head(v, None, vocabulary)
def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024
# The peak so far is that of importing torch; it is forgotten here.
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = memory("VmRSS")
began = time.perf_counter()
if way == "words":
    loss, _ = vocabulary_divergence(s, ours, t, theirs, kind="forward", words=8192, tokens=512)
else:
    def per_token(a, b, at):
        return {"kl": divergence(log_probabilities(b), log_probabilities(a), "forward")}
    loss = by_blocks(s, ours, t, theirs, per_token, tokens if way == "whole" else 128)["kl"].sum()
loss.backward()
seconds = time.perf_counter() - began
after = memory("VmHWM")
print(json.dumps({"mb": after - before, "loss": float(loss.detach()), "seconds": seconds}))
"""


def run(quick: bool) -> dict[str, list[dict[str, Any]]]:
    tokens, vocabulary = (256, 20_000) if quick else (1_024, 150_000)
    found = {}
    for way in ("whole", "tokens", "words"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, way, str(tokens), str(vocabulary)],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        found[way] = [{**json.loads(done.stdout), "tokens": tokens, "vocabulary": vocabulary}]
    return found


COLUMNS = {"peak MB": ("mb", 0), "loss": ("loss", 3), "seconds": ("seconds", 2), "tokens": ("tokens", 0)}
