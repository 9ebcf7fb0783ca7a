"""The library with its signatures, and what this processor's build of it can do."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_long, c_void_p
from functools import cache

import torch

from trilaw.model.native import build

LANES = 16  # numbers that the C code takes at a time: sizes of heads are multiples
PANEL = 32  # outputs of a weight that lie together, as panels.h has it
ROWS = 12  # rows that whole matrices are multiplied by at a time, as panels.h has it where there are such products
HALF = {torch.float32: 0, torch.bfloat16: 1}


@cache
def functions() -> ctypes.CDLL | None:
    """The library with its signatures declared; None where there is none."""
    library = build.library()
    if library is not None:
        n, p, f, i = c_long, c_void_p, c_float, c_int
        library.trilaw_add_norm.argtypes = (n, n, p, p, p, f, p, i, i)
        library.trilaw_gated.argtypes = (n, n, p, p, n, p, i, i)
        library.trilaw_rotate.argtypes = (n, n, n, p, n, p, p, n, f, i, i)
        library.trilaw_gated_slopes.argtypes = (n, n, p, p, p, p, p, p, i, i)
        library.trilaw_norm_slopes.argtypes = (n, n, p, p, f, p, p, p, i, i)
        library.trilaw_attend.argtypes = (n, p, p, p, p, n, p, p, p, n, n, n, n, n, n, f, p, p, n, p, p, n, p, p, i, i)
        library.trilaw_draw.argtypes = (n, n, p, p, p, p, p, p, i, i)
        library.trilaw_exponentials.argtypes = (n, n, p, p, n, p, p, p, i)
        library.trilaw_logit_slopes.argtypes = (n, n, p, p, p, n, p, i, i)
        library.trilaw_exponentials.restype = library.trilaw_logit_slopes.restype = None
        for name in ("add_norm", "gated", "rotate", "attend", "draw", "gated_slopes", "norm_slopes"):
            getattr(library, f"trilaw_{name}").restype = None
        library.trilaw_causal.argtypes = (p, p, p, p, p, p, i)
        library.trilaw_causal_backward.argtypes = (p, p, p, p, p, p, p, p, p, p, i)
        library.trilaw_causal.restype = library.trilaw_causal_backward.restype = None
        if multiplies_bytes(library):
            library.trilaw_product_of_bytes.argtypes = (n, n, n, n, p, i, i, p, p, p, p, i, i)
            library.trilaw_product_of_bytes.restype = None
        if multiplies_halves(library):
            library.trilaw_product_of_halves.argtypes = (n, n, n, p, p, p, p, i, i)
            library.trilaw_product_of_halves.restype = None
            library.trilaw_pack.argtypes = (n, n, p, i, p, i)
            library.trilaw_multiply.argtypes = (n, n, n, n, p, p, p, p, p, i, i)
            library.trilaw_head.argtypes = (n, n, n, p, p, p, n, p, p, p, p, i)
            for name in ("pack", "multiply", "head"):
                getattr(library, f"trilaw_{name}").restype = None
    return library


def multiplies_halves(library: ctypes.CDLL | None) -> bool:
    """Whether the library has bfloat16 products, which take AVX512-BF16; not where AMX makes PyTorch's far faster."""
    amx = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return library is not None and not amx and hasattr(library, "trilaw_product_of_halves")


def multiplies_bytes(library: ctypes.CDLL | None) -> bool:
    """Whether the library has 8-bit products, which take AVX512-VNNI."""
    return library is not None and hasattr(library, "trilaw_product_of_bytes")
