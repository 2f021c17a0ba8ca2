"""Small matrices beside the student's own (LoRA, 2106.09685) through peft, put in place and merged again, so that the
student stays the model that transformers loads."""

from typing import Any

from torch import Tensor

from training.distill.config import LoraConfig
from training.distill.errors import CannotDistill
from training.extras import require


def with_lora(student: Any, lora: LoraConfig) -> None:
    """Freezes the student except for the small matrices and its embeddings, where `<help>`'s row is. Raises
    ExtraMissing without peft, CannotDistill where no layer has a name of `targets`."""
    require("lora", "peft")
    import peft  # type: ignore[import-not-found, import-untyped, unused-ignore]

    settings = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
    try:
        peft.inject_adapter_in_model(settings, student)
    except ValueError as error:
        raise CannotDistill(f"wheels.lora.targets: {' '.join(str(error).split())[:200]}") from None
    for name, parameter in student.named_parameters():
        parameter.requires_grad_("lora_" in name)
    student.get_output_embeddings().weight.requires_grad_(True)


def merged(student: Any) -> dict[str, Tensor]:
    """The student's weights under their plain names, small matrices added in."""
    from peft.tuners.lora import LoraLayer  # type: ignore[import-not-found, import-untyped, unused-ignore]

    layers = {name: module for name, module in student.named_modules() if isinstance(module, LoraLayer)}
    for module in layers.values():
        module.merge()
    found = {
        name.replace(".base_layer.", "."): value.detach().clone()
        for name, value in student.state_dict().items()
        if "lora_" not in name
    }
    for module in layers.values():
        module.unmerge()
    return found
