"""What is compared on Multi30k, and what is told of it."""

from typing import Any, Literal

Arms = dict[str, dict[str, Any]]
Start = Literal["trained", "after-kd", "fresh", "disfluent", "disfluent-short", "disfluent-own", "disfluent-few"]
RANKING = {"k": 10, "weight": 0.5, "on": "log-probability", "temperature": 1.0}
PUBLISHED = {"k": 10, "weight": 2.0, "on": "probability", "temperature": 0.05}
# Pairs of layers, made for the models at hand by `pairs`.
SPREAD, ENDS = "spread", "ends"
# Found on the validation split (docs/distill/features.md): prompts teach more than answers do, whose tokens the head
# teaches already; a log-norm weight of 1 keeps lengths within a tenth.
FEATURES = {"kind": "cos-norm", "log_norm": 1.0, "weight": 12.0, "layers": ENDS, "places": "all"}
# For a student that was trained already. Every layer: the last one alone leaves little that the head does not teach.
LATE_FEATURES = {"kind": "cos-norm", "log_norm": 0.1, "weight": 1.0, "layers": SPREAD}
# A fifth of the rate, since a few hundred pairs are quickly learned by heart; three epochs, since writing costs most;
# imitation was chosen once, between the published 1 and none (docs/distill/warmup.md).
WARMUP: dict[str, Any] = {"learning_rate": 3e-4, "epochs": 3.0, "imitation": 0.3}
WARMUPS: Arms = {
    "kd": {},
    "warm-up, kd": {"warmup": WARMUP},
    "kd, extra steps": {"extra": True},
    "sft, kd": {"warmup": {**WARMUP, "preference": 0.0, "imitation": 1.0}},
    "dpo, kd": {"warmup": {**WARMUP, "preference": 1.0, "imitation": 0.0}},
    "as published, kd": {"warmup": {**WARMUP, "preference": 1.0, "imitation": 1.0}},
}
OWN_TEXT: dict[str, Any] = {"on_policy": 1.0, "max_new_tokens": 40}

# The first three of each are run with every seed, and one that is asked for by name; the others with the first only.
METHODS: dict[str, Arms] = {
    "ranking": {
        "kd": {},
        "kd+rank": {"ranking": RANKING},
        "kd+shuffled rank": {"ranking": {**RANKING, "shuffled": True}},
        "kd+rank as published": {"ranking": PUBLISHED},
        "kd+rank by confidence": {"ranking": {**RANKING, "confidence": True}},
    },
    "features": {
        "kd": {},
        "kd+features": {"features": FEATURES},
        "kd+shuffled features": {"features": {**FEATURES, "shuffled": True}},
        "kd+cos": {"features": {**FEATURES, "kind": "cos"}},
        "kd+mse": {"features": {**FEATURES, "kind": "mse", "weight": 2.5}},
        "kd+features of answers alone": {"features": {**FEATURES, "places": "answers"}},
        "kd+features, nothing fitted": {"features": {**FEATURES, "start": "orthogonal"}},
        "kd+features, frozen rotation": {"features": {**FEATURES, "projection": "orthogonal"}},
    },
    "warmup": WARMUPS,
    # A quarter of the steps; so many on the student's own texts, which are faulty as long as the student is; so many
    # over no more rows than are corrected, again and again.
    "warmup-short": WARMUPS,
    "warmup-few": WARMUPS,
    "warmup-own": {arm: {**changes, "loss": OWN_TEXT} for arm, changes in WARMUPS.items()},
    "summary": {
        "kd": {},
        "kd+rank": {"ranking": RANKING},
        "kd+features": {"features": LATE_FEATURES},
        "warm-up, kd": {"warmup": {}},
        "kd+rank+features": {"ranking": RANKING, "features": LATE_FEATURES},
    },
}


# What each method is for (measured: from a student that was trained on the data, both gain nothing). Hidden states are
# worth copying while a student makes its own. Correcting is for a student whose own text has a fault that the teacher
# refuses: here one that went on to learn from disfluent speech, words said twice and more.
STARTS: dict[str, Start] = {
    "features": "fresh",
    "warmup": "disfluent",
    "warmup-short": "disfluent-short",
    "warmup-own": "disfluent-own",
    "warmup-few": "disfluent-few",
}


def pairs(kind: str, ours: int, theirs: int) -> tuple[tuple[int, int], ...]:
    """`spread`: each of `ours` layers of a student with one of the teacher's, the last with the last; `ends`: the first
    with the first, the last with the last."""
    if kind == ENDS:
        return ((1, 1), (ours, theirs)) if ours > 1 else ((1, theirs),)
    return tuple((layer, max(1, round(layer * theirs / ours))) for layer in range(1, ours + 1))


NEEDED = {"kd, extra steps": "warm-up, kd"}
"""An arm -> another that must have run before it."""

COLUMNS: dict[str, dict[str, tuple[str, int]]] = {
    "ranking": {
        "CR@3": ("held.cr3", 3), "CR@5": ("held.cr5", 4), "CR@5 train": ("train.cr5", 4), "MOR@10": ("held.mor10", 3),
        "MOR@10 train": ("train.mor10", 3), "NLL": ("held.nll", 3), "KL": ("held.kl", 4),
    },
    "features": {
        "centred cosine": ("hidden.paired.centred_cosine", 3), "norm ratio": ("hidden.paired.norm_ratio", 3),
        "cosine, best P": ("hidden.paired.fitted_centred_cosine", 3), "CKA": ("hidden.paired.cka", 3),
        "width's ceiling": ("hidden.paired.width_ceiling", 3),
        "last layers: cosine, best P": ("hidden.last.fitted_centred_cosine", 3),
        "ceiling there": ("hidden.last.width_ceiling", 3),
        "KL halfway": ("kl_halfway", 4), "steps to kd's KL": ("steps_to_kd", 0), "KL": ("held.kl", 4),
        "NLL": ("held.nll", 3),
    },
    "warmup": {
        "reverse KL, own text, start": ("start.reverse_kl", 3), "refused, start": ("start.refused_share", 3),
        "data's KL, start": ("kl_start", 3), "best on the way": ("kl_best", 4),
        "reverse KL, own text, end": ("end.reverse_kl", 3), "refused, end": ("end.refused_share", 3),
        "steps to kd's KL": ("steps_to_kd", 0), "KL": ("held.kl", 4), "NLL": ("held.nll", 3),
        "chosen gain": ("warmup_last.chosen_gain", 1), "rejected gain": ("warmup_last.rejected_gain", 1),
    },
    "summary": {
        "KL": ("held.kl", 4), "NLL": ("held.nll", 3), "CR@5": ("held.cr5", 3), "MOR@10": ("held.mor10", 3),
        "tokens/s served": ("test.tokens_per_second", 0), "MB": ("test.weights_mb", 1),
    },
}  # fmt: skip
COLUMNS |= dict.fromkeys(("warmup-short", "warmup-own", "warmup-few"), COLUMNS["warmup"])
ALL = {
    "BLEU": ("test.bleu", 1), "chrF": ("test.chrf", 1), "steps": ("steps", 0), "tokens": ("tokens", 0),
    "CPU s": ("seconds", 0),
}  # fmt: skip
