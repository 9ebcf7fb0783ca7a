"""Which number format and device a model runs in when the user names none.

bfloat16 halves memory traffic, which bounds decoding, but pays on a CPU only with native bfloat16 products (AVX512_BF16, AMX or Arm's
BF16); elsewhere they are emulated and slower than float32. Below 20 million weights the work is overhead rather than products, and small
models are what people train from nothing: float32 stays.
"""

from __future__ import annotations

import torch

SMALL = 20_000_000  # weights; below, float32
_NATIVE = ("avx512_bf16", "amx_bf16", "amx_tile", "bf16")  # names in torch.cpu.get_capabilities()


def default_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def native_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices run in hardware there."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # oneDNN's own probe also says yes where it emulates, so it is necessary and not sufficient.
        if not torch._C._has_mkldnn or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in _NATIVE)
    return False


def choose(parameters: int, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype for a model of so many weights on `device`, and the reason as a sentence."""
    if parameters < SMALL:
        return torch.float32, f"float32, since {parameters:,} weights are too few for bfloat16 to pay."
    if native_bfloat16(device):
        return (
            torch.bfloat16,
            f"bfloat16, since this {device.type.upper()} multiplies it natively and it halves memory traffic.",
        )
    return torch.float32, f"float32, since this {device.type.upper()} has no native bfloat16 products."
