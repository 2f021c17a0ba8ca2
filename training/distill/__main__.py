"""`python -m training.distill kd --config F`, for launchers that start modules:

torchrun --nproc-per-node 8 -m training.distill kd --config kd.toml
"""

from training.distill.cli import distill

if __name__ == "__main__":
    distill(prog_name="python -m training.distill")
