"""Control: held-out real clips with their first frame repeated; perfect images, no motion."""

from __future__ import annotations

from collections.abc import Sequence

from vfbench.baselines._control import Control
from vfbench.interfaces import BuildContext, Clips, Request


class Frozen(Control):
    """Clips without motion; a metric that scores them well does not see motion."""

    def sample(self, requests: Sequence[Request]) -> Clips:
        """Clips of one frame repeated T times, uint8 (B, T, 3, H, W)."""
        clips = self.real(requests)
        return clips[:, :1].expand_as(clips).contiguous()


def build(context: BuildContext) -> Frozen:
    """Frozen clips of the context's dataset."""
    return Frozen(context.dataset)
