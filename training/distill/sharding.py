"""Weights shared out over devices (FSDP): every decoder layer is a unit, the rest another.

`training.sharding = "fsdp"` under torchrun. torch's own fully_shard, because it also runs on CPU processes, where it is
tested; devices, autocast and plain data parallelism are accelerate's.
"""

from typing import Any

from torch import nn

from training.distill.errors import CannotDistill
from training.distill.models import layers_of


def shard(lesson: nn.Module, student: Any, device_type: str, bf16: bool) -> None:
    """In place; make the optimizer afterwards. Raises CannotDistill outside of torchrun."""
    import torch
    import torch.distributed as distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if not distributed.is_initialized():
        raise CannotDistill(
            'training.sharding: "fsdp" needs several processes: torchrun --nproc-per-node N -m training.distill ...'
        )
    mesh = init_device_mesh(device_type, (distributed.get_world_size(),))
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    )
    for layer in layers_of(student):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(lesson, mesh=mesh, mp_policy=policy)
