"""What proves the numbers in README and docs. Each program is `python -m benchmarks.NAME` and has a `make bench-NAME`."""
