"""What each distillation buys, against its own ablations: `python -m benchmarks.distill --method M`."""
