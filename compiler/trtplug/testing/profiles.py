"""How much the laws try: ``ci`` on every change, ``nightly`` when there is time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.internal.conjecture import providers


@dataclasses.dataclass(frozen=True)
class Profile:
    """How much one law tries of one converter and dtype.

    Attributes:
        name: of the profile.
        calls: descriptions of calls (shapes, arguments) that are drawn; each is converted once.
        values: times that values are drawn for one description.
        dynamic_calls: descriptions with symbolic sizes.
        points: random sizes between min and max that each of these is run at, besides min, opt and max.
        builds: most engines built for one converter and dtype, over all laws.
        forced: calls forced past one restriction before it counts as needless.
        every_dtype: whether symbolic sizes are tried and built for every dtype, and not for one float, one integer and
            bool only: law 1 has tried the values of each, and law 3 builds static calls of each.
        derandomize: whether every run draws the same.
        seeded: whether what is drawn depends on the converter and dtype alone, and not on the laws' own source or what
            else is imported too: for findings that are recorded.
        shrink: whether what fails is made small.
        in_vain: draws of which not one was taken, after which there is no point in going on.
        run: most examples of one run of Hypothesis. After ten it mostly varies the values of those that it has drawn,
            so that more of them than that are new calls only where there are several runs.
        seconds: after which a law stops drawing, having tried at least one example.
    """

    name: str
    calls: int
    values: int
    dynamic_calls: int
    points: int
    builds: int
    forced: int
    every_dtype: bool = False
    derandomize: bool = True
    seeded: bool = False
    shrink: bool = True
    in_vain: int = 24
    run: int = 24
    seconds: float = math.inf

    def settings(self, examples: int) -> settings:
        """Hypothesis settings; the laws count refused draws themselves, and budget time by counts."""
        return settings(
            max_examples=examples,
            derandomize=self.derandomize,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if self.shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
            verbosity=Verbosity.quiet,
        )

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """While anything is drawn under this profile.

        Hypothesis draws, now and then, a number that it has found in the source of whatever is imported at the time:
        what is drawn would differ between two programs, and with every number that anybody writes. Where it has no such
        function, it has no such habit.
        """
        found = getattr(providers, "_get_local_constants", None)
        if not self.seeded or found is None:
            yield
            return
        none = type(found())()
        providers._get_local_constants = lambda: none
        providers.CONSTANTS_CACHE.cache.clear()
        try:
            yield
        finally:
            providers._get_local_constants = found
            providers.CONSTANTS_CACHE.cache.clear()


CI = Profile("ci", calls=12, values=2, dynamic_calls=4, points=2, builds=2, forced=6)
NIGHTLY = Profile(
    "nightly",
    calls=300,
    values=4,
    dynamic_calls=100,
    points=6,
    builds=12,
    forced=60,
    every_dtype=True,
    derandomize=False,
    in_vain=80,
    run=10,
)
PROFILES = {profile.name: profile for profile in (CI, NIGHTLY)}
