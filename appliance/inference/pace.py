"""How often a frame is looked at: at most at a rate, and at no more CPU than the desk can spare. Pure.

The newest frame is always the next one, so a slower pace leaves frames out and never falls behind.
"""

from __future__ import annotations

from typing import Self

from appliance.config import NodeConfig

# Frames come at the same rate as they are looked at; one that is a tenth of a period early is jitter of the writer.
EARLY_SHARE = 0.1


class Pace:
    """CPU time is owed when it is used and paid by the time that passes; a frame may begin when nothing is owed.

    So within any span the CPU used is at most its share of the span and one frame's cost more. An average of past costs
    could not say that, and would have to forget a slow frame before the pace came back.
    """

    def __init__(self, rate_hz: float, cpu_budget: float) -> None:
        """`cpu_budget` is a share of one core, above 0 and up to 1."""
        if rate_hz <= 0 or not 0 < cpu_budget <= 1:
            raise ValueError(f"no pace of {rate_hz:g} Hz within {cpu_budget:g} of a core")
        self.period_s = 1 / rate_hz
        self._period_ns = round(1e9 / rate_hz)
        self._early_ns = round(self._period_ns * EARLY_SHARE)
        self._budget = cpu_budget
        self._next_ns = 0
        self._owed_ns = 0.0
        self._seen_ns: tuple[int, int] | None = None

    @classmethod
    def of(cls, config: NodeConfig) -> Self:
        """The pace that a desk's settings allow, in an exam and when it is accepted."""
        return cls(config.inference_rate_hz, config.inference_cpu_percent / 100)

    def wait_s(self, now_ns: int, cpu_ns: int) -> float:
        """Seconds until the next frame may begin, 0 for now; to be asked again then, and while nothing is looked at.

        `now_ns` is monotonic, `cpu_ns` the CPU time of the whole process, all threads.
        """
        passed_ns, used_ns = self._since(now_ns, cpu_ns)
        self._owed_ns = max(0.0, self._owed_ns + used_ns - self._budget * passed_ns)
        by_rate_ns = self._next_ns - self._early_ns - now_ns
        return max(0.0, by_rate_ns, self._owed_ns / self._budget) / 1e9

    def begin(self, now_ns: int) -> None:
        """A frame is looked at from now on; after `wait_s` said 0."""
        # From the time that was due, so that early frames do not add up; a whole period late is not made up for.
        late = now_ns >= self._next_ns + self._period_ns
        self._next_ns = (now_ns if late else self._next_ns) + self._period_ns

    def end(self, now_ns: int, cpu_ns: int) -> None:
        """The frame is done."""
        passed_ns, used_ns = self._since(now_ns, cpu_ns)
        # Of this time only what the processor worked counts: waiting for a core is no rest that was taken.
        self._owed_ns += used_ns - self._budget * min(passed_ns, used_ns)

    def _since(self, now_ns: int, cpu_ns: int) -> tuple[int, int]:
        before_ns, before_cpu_ns = self._seen_ns or (now_ns, cpu_ns)
        self._seen_ns = (now_ns, cpu_ns)
        return max(0, now_ns - before_ns), max(0, cpu_ns - before_cpu_ns)
