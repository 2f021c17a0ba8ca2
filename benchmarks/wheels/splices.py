"""Prompts that the teacher has not learned by heart.

A teacher trained for several epochs knows the data's own prompts far better than any that it will be served with (its
loss there is half of that on held-out text), so what a student needs help with cannot be learned on them. New ones are
spliced from two of the data's: the beginning of one up to a preposition, the other from the same preposition on.
"""

import json
import random
from collections import defaultdict
from pathlib import Path

JOINTS = ("in", "auf", "mit", "an", "vor", "und", "von", "bei", "neben", "während", "durch", "über", "am", "im", "zu")
ENDING = " =>"


def spliced(train: Path, count: int, out: Path) -> Path:
    """Writes `count` prompts as JSONL; the same every time."""
    if out.exists():
        return out
    prompts = [json.loads(line)["prompt"] for line in train.read_text(encoding="utf-8").splitlines()]
    known = set(prompts)
    draw = random.Random(0)
    heads: dict[str, list[str]] = defaultdict(list)
    tails: dict[str, list[str]] = defaultdict(list)
    for prompt in prompts:
        words = prompt.removesuffix(ENDING).split()
        for at in range(2, len(words) - 1):
            if words[at] in JOINTS:
                heads[words[at]].append(" ".join(words[:at]))
                tails[words[at]].append(" ".join(words[at:]))
    joints = sorted(heads)
    weights = [len(heads[joint]) for joint in joints]
    found: list[str] = []
    # Where the data has no such words (a made-up language), two whole prompts stand one after the other.
    if not joints:
        cut = [prompt.removesuffix(ENDING) for prompt in prompts]
        found = [f"{draw.choice(cut)} {draw.choice(cut)}{ENDING}" for _ in range(count)]
    while len(found) < count:
        joint = draw.choices(joints, weights)[0]
        new = f"{draw.choice(heads[joint])} {draw.choice(tails[joint])}{ENDING}"
        if new not in known:
            known.add(new)
            found.append(new)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_suffix(".part")
    beside.write_text(
        "".join(json.dumps({"prompt": one}, ensure_ascii=False) + "\n" for one in found), encoding="utf-8"
    )
    beside.replace(out)
    return out
