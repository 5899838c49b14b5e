"""Seeds that derive from seeds: everything random follows from (a study's seed, a trial's number)."""

import numpy as np


def derived(seed: int, number: int) -> int:
    """A seed of 32 bits for the part `number` of what `seed` drives; both are 0 or more."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
