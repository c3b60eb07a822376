"""Memory: what running out of it looks like, and how what is free is given back."""

from __future__ import annotations

import gc

import torch

SIGNS = (
    "DefaultCPUAllocator",  # torch raises a plain RuntimeError on the CPU
    "out of memory",  # the CUDA runtime's own, outside of torch's allocator
    "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED",  # the second: no room for its handle
    "CUDNN_STATUS_ALLOC_FAILED", "ALLOCATION_FAILED", "CUDNN_STATUS_NOT_INITIALIZED",  # cuDNN to 8, from 9, and its handle
    "unable to find an engine to execute this computation", "Unable to find a valid cuDNN algorithm",  # torch has tried all of them
)  # fmt: skip
"""In the text of a RuntimeError. CUDNN_STATUS_INTERNAL_ERROR is not among them: it may be anything."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def free_unused(device: torch.device) -> None:
    """Gives back what nothing holds any more. Outside of any `except`: the error's traceback holds the failed call's tensors."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
