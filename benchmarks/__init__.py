"""What proves the numbers in README and docs: each program is `python -m benchmarks.NAME` and a `make` target."""
