"""Memory that is not there: how JAX says it, and how many lanes to go on with."""

_SAYS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")


def is_out(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _SAYS)


def fewer(lanes: int, devices: int) -> int:
    """About half as many lanes, a multiple of the devices; 0 where each device has one already."""
    return 0 if lanes <= devices else max(1, lanes // 2 // devices) * devices
