"""How long to wait before trying again."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential with jitter between `base` and `cap` seconds: a fleet that failed together spreads."""

    base: float
    cap: float

    def delay(self, attempt: int, source: random.Random) -> float:
        """Seconds to wait after the `attempt`-th try (1 is the first)."""
        # Past 2**32 the cap holds anyway; a larger exponent would only overflow.
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt, 32))
        return source.uniform(self.base, ceiling)
