"""What is compared on Multi30k, and what is told of it."""

from typing import Any

Arms = dict[str, dict[str, Any]]
RANKING = {"k": 10, "weight": 0.5, "on": "log-probability", "temperature": 1.0}
PUBLISHED = {"k": 10, "weight": 2.0, "on": "probability", "temperature": 0.05}
FEATURES = {"kind": "nd", "weight": 1.0}
WARMUP: dict[str, Any] = {}

# The first three of each are run with every seed, the others with the first only.
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
        "kd+nd": {"features": FEATURES},
        "kd+shuffled nd": {"features": {**FEATURES, "shuffled": True}},
        "kd+nd, frozen rotation": {"features": {**FEATURES, "projection": "orthogonal"}},
        "kd+nd, nothing fitted": {"features": {**FEATURES, "start": "orthogonal", "centred": False}},
        "kd+cos": {"features": {**FEATURES, "kind": "cos"}},
        "kd+mse": {"features": {**FEATURES, "kind": "mse"}},
    },
    "warmup": {
        "kd": {},
        "warm-up, kd": {"warmup": WARMUP},
        "kd, extra steps": {"extra": True},
        "sft, kd": {"warmup": {**WARMUP, "preference": 0.0, "imitation": 1.0}},
        "dpo, kd": {"warmup": {**WARMUP, "preference": 1.0, "imitation": 0.0}},
    },
    "summary": {
        "kd": {},
        "kd+rank": {"ranking": RANKING},
        "kd+nd": {"features": FEATURES},
        "warm-up, kd": {"warmup": WARMUP},
        "kd+rank+nd": {"ranking": RANKING, "features": FEATURES},
    },
}
NEEDED = {"kd, extra steps": "warm-up, kd"}
"""An arm -> another that must have run before it."""

COLUMNS: dict[str, dict[str, tuple[str, int]]] = {
    "ranking": {
        "CR@3": ("held.cr3", 3), "CR@5": ("held.cr5", 4), "CR@5 train": ("train.cr5", 4), "MOR@10": ("held.mor10", 3),
        "MOR@10 train": ("train.mor10", 3), "NLL": ("held.nll", 3), "KL": ("held.kl", 4),
    },
    "features": {
        "centred cosine": ("hidden.centred_cosine", 3), "norm ratio": ("hidden.norm_ratio", 3),
        "norm ratio without P": ("hidden.raw_norm_ratio", 3), "CKA": ("hidden.cka", 3),
        "cosine, best P": ("hidden.fitted_centred_cosine", 3), "width's ceiling": ("hidden.width_ceiling", 3),
        "KL halfway": ("kl_halfway", 4), "KL": ("held.kl", 4), "NLL": ("held.nll", 3),
    },
    "warmup": {
        "reverse KL, own text, start": ("start.reverse_kl", 3), "refused, start": ("start.refused_share", 3),
        "steps to kd's KL": ("steps_to_kd", 0), "KL": ("held.kl", 4), "NLL": ("held.nll", 3),
        "chosen gain": ("warmup_last.chosen_gain", 1), "rejected gain": ("warmup_last.rejected_gain", 1),
    },
    "summary": {
        "KL": ("held.kl", 4), "NLL": ("held.nll", 3), "CR@5": ("held.cr5", 3), "MOR@10": ("held.mor10", 3),
        "tokens/s served": ("test.tokens_per_second", 0), "MB": ("test.weights_mb", 1),
    },
}  # fmt: skip
ALL = {
    "BLEU": ("test.bleu", 1), "chrF": ("test.chrf", 1), "steps": ("steps", 0), "tokens": ("tokens", 0),
    "CPU s": ("seconds", 0),
}  # fmt: skip
