"""Training wheels inside the answer, against thresholds, chance, distillation and speculative decoding."""
