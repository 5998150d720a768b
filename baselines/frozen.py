"""Control: held-out real clips with their first frame repeated; perfect pictures, no motion."""

from __future__ import annotations

from collections.abc import Sequence

from vfbench.baselines._control import Control
from vfbench.interfaces import BuildContext, Clips, Request


class Frozen(Control):
    """A metric that rates this well does not see motion."""

    def sample(self, requests: Sequence[Request]) -> Clips:
        """Clips of one frame shown T times, uint8 (B, T, 3, H, W)."""
        clips = self.real(requests)
        return clips[:, :1].expand_as(clips).contiguous()


def build(setting: BuildContext) -> Frozen:
    """The frozen clips of the setting's dataset."""
    return Frozen(setting.dataset)
