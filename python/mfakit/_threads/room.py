"""Room for threads and matrix products under a limit of memory: where they find none they end the process, or wait
for it for ever, so that it is asked for before.
"""

from __future__ import annotations

import numpy as np

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["PRODUCT_BYTES", "STACK_BYTES", "has_room", "is_limited", "is_scarce", "require_room", "threads_with_room"]

# Address space of a thread's stack, and what OpenBLAS takes for the panels of each product that runs at the same time.
STACK_BYTES, PRODUCT_BYTES = 9 * 2**20, 34 * 2**20
SCARCE_BYTES = 2**28


def is_limited() -> bool:
    """Whether this process has a limit of address space."""
    return resource is not None and resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def has_room(size: int) -> bool:
    """Whether this many bytes can be allocated."""
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        return False
    return True


def is_scarce() -> bool:
    """Whether little is left under a limit: OpenBLAS allocates at each product in several threads, and ends the process
    where it cannot; at one in a single thread it does not.
    """
    return is_limited() and not has_room(SCARCE_BYTES)


def threads_with_room(count: int) -> int:
    """How many of this many threads, each with products of its own, find room for that; 1 without any."""
    while count > 1 and is_limited() and not has_room(count * (STACK_BYTES + PRODUCT_BYTES)):
        count -= 1
    return count


def require_room(products: int) -> None:
    """Raise MemoryError if this many products have no room for their panels."""
    if is_limited() and not has_room(products * PRODUCT_BYTES):
        raise MemoryError(
            f"matrix products need {products * PRODUCT_BYTES / 2**20:.0f} MiB more, which this process cannot have; "
            "raise its limit of memory"
        )
