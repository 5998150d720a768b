"""Control: held-out real clips, the score that a perfect model would reach."""

from __future__ import annotations

from collections.abc import Sequence

from vfbench.baselines._control import Control
from vfbench.interfaces import BuildContext, Clips, Request


class Real(Control):
    """The held-out real clip that each request's label and prompt come from."""

    def sample(self, requests: Sequence[Request]) -> Clips:
        """Real clips, uint8 (B, T, 3, H, W)."""
        return self.real(requests)


def build(context: BuildContext) -> Real:
    """Real clips of the context's dataset."""
    return Real(context.dataset)
