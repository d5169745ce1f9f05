"""Names of tensors and modules as the model itself has them, whatever it is wrapped in.

    torch.compile(model), torch.compile(model.blocks[0])      _orig_mod
    DistributedDataParallel(model), DataParallel(model)       module
    FullyShardedDataParallel(model, use_orig_params=True)     _fsdp_wrapped_module
    checkpoint_wrapper(block)                                 _checkpoint_wrapped_module

Each puts a module of its own around one, and so a part into the names below. A part called "module"
is dropped below the two classes alone: a model may call one of its own so. FSDP2 (`fully_shard`)
changes no name.
"""

from __future__ import annotations

from torch import nn

PARTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
PARALLEL = (nn.parallel.DistributedDataParallel, nn.parallel.DataParallel)


def plain_name(model: nn.Module, name: str) -> str:
    """The name without the parts of wrappers.

    >>> from torch import nn
    >>> model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2)))
    >>> [plain_name(model, name) for name, _ in model.named_parameters()]
    ['0.weight', '0.bias']
    """
    parts, at = [], model
    for part in name.split("."):
        if part not in PARTS and not (part == "module" and isinstance(at, PARALLEL)):
            parts.append(part)
        at = getattr(at, part, at)
    return ".".join(parts)


def tensors_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The tensors of a model by their own names."""
    return {plain_name(model, name): p for name, p in model.named_parameters()}


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a model by their own names: what is wrapped, in the place of the wrapper."""
    return {plain_name(model, name): module for name, module in model.named_modules()}


def is_flattened(model: nn.Module) -> bool:
    """Whether FullyShardedDataParallel holds its tensors, as parts of flat ones."""
    return any("_fsdp_wrapped_module" in module._modules for module in model.modules())
