"""Training wheels inside the answer: the student learns to ask for help in mid-sentence (docs/distill/wheels.md)."""
