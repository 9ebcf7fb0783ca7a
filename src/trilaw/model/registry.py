"""From an architecture's numbers to a module. A new family is a new file and a new line here."""

from __future__ import annotations

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, nearest
from trilaw.model.llama import CausalLM

FAMILIES: dict[str, type[CausalLM]] = {"llama": CausalLM}


def empty(arch: Arch) -> CausalLM:
    """A model whose weights are allocated (on the current default device) but not set: for loaders.

    Raises ModelError for an unknown family.
    """
    if arch.family not in FAMILIES:
        raise ModelError(f"The architecture '{arch.family}' is not supported{nearest(arch.family, FAMILIES)}.")
    return FAMILIES[arch.family](arch)


def build(arch: Arch, *, seed: int = 0) -> CausalLM:
    """A new float32 model on the CPU with random weights (`CausalLM.init_weights(seed)`).

    Raises ModelError for an unknown family.
    """
    model = empty(arch)
    model.init_weights(seed)
    return model
