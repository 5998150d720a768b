"""Control: held-out real clips, the best row that a perfect model could reach."""

from __future__ import annotations

from collections.abc import Sequence

from vfbench.baselines._control import Control
from vfbench.interfaces import BuildContext, Clips, Request


class Real(Control):
    """Each request is answered with the held-out clip that its label and prompt were taken from."""

    def sample(self, requests: Sequence[Request]) -> Clips:
        """Real clips, uint8 (B, T, 3, H, W)."""
        return self.real(requests)


def build(setting: BuildContext) -> Real:
    """The real clips of the setting's dataset."""
    return Real(setting.dataset)
