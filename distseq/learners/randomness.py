"""Finds out whether the blocks of a learner that draws random numbers may share a pass."""

from dataclasses import replace

import numpy as np

from distseq.cluster.errors import DrawsError
from distseq.cluster.pool import Payload
from distseq.engine.differences import TOLERANCE
from distseq.gradients.work import GradientWork

# Blocks that a batch is cut into for a trial: few, because each may cost a pass.
BLOCKS = 4
# Blocks with which one pass is compared with a pass for each: of other sizes than the batch, so that a tensor whose first
# dimension only happens to have its size shows.
TRIED = 3


def is_joint(work: GradientWork, payload: Payload) -> bool:
    """Whether dropout of tensors with the batch first is all that is drawn for the batch of `payload`.

    Then a pass of the whole gives what a pass for each block gives. A model that sorts its batch, for instance, would give
    samples the masks of other blocks.
    """
    tried = replace(payload, blocks=min(TRIED, len(payload.ids)), joint=False)
    try:
        work.row(replace(payload, blocks=0), payload.ids, np.ones(len(payload.ids)))
        # Other samples have drawn, and it is not known what.
        return False
    except DrawsError:
        pass
    together, numbers = work.joint_row(tried), len(payload.parameters)
    if together is None:
        return False
    apart = work.row(tried, tried.ids, np.ones(len(tried.ids)))[:numbers]
    off, size = np.linalg.norm(together[:numbers] - apart), np.linalg.norm(apart)
    return bool(off <= TOLERANCE[apart.dtype.name] * size)
