"""Where policies think: in a process beside each worker, so that a slow, hanging or crashing policy stops no answer.

`scorer` is the seam, `process` the worker's side of it, `child` the process, `wire` what they say to each other.
"""
