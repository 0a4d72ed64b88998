"""Memory-based temporal graph networks, and four modes of one large batch that are sums over parts."""

from distseq.models.temporal.draws import Draws as Draws
from distseq.models.temporal.graph import Graph as Graph
from distseq.models.temporal.model import TemporalModel as TemporalModel
from distseq.models.temporal.modes import advance as advance
from distseq.models.temporal.modes import changes as changes
from distseq.models.temporal.modes import class_logits as class_logits
from distseq.models.temporal.modes import negatives as negatives
from distseq.models.temporal.modes import part_loss as part_loss
from distseq.models.temporal.modes import scores as scores
from distseq.models.temporal.prepared import Prepared as Prepared
from distseq.models.temporal.prepared import prepare as prepare
from distseq.models.temporal.state import State as State
from distseq.models.temporal.state import state_bytes as state_bytes
