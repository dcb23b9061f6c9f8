"""What an exception of torch means: too little memory, a device that is lost, or anything else."""

import torch

SHORT = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How the exceptions of MPS, of CPUs and of CUDA's libraries say it."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was asked for that is not there. Only CUDA has an exception of its own for it."""
    said = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in said for words in SHORT)
    )


def device_lost(error: BaseException) -> bool:
    """Whether nothing can be computed on the device any more by this process: after an error in a kernel CUDA refuses
    all that follows, until the process ends.
    """
    if out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def free_memory(device: torch.device) -> None:
    """Give back what torch keeps for later; its caches are in pieces of the sizes that were used."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
