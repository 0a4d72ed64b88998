"""Evaluation of temporal models: rows of scores that parts of a stream give, and the figures of all rows together."""

from distseq.models.temporal.evaluation.baselines import baseline_figures as baseline_figures
from distseq.models.temporal.evaluation.candidates import Candidates as Candidates
from distseq.models.temporal.evaluation.described import described as described
from distseq.models.temporal.evaluation.evaluate import Evaluation as Evaluation
from distseq.models.temporal.evaluation.figures import figures as figures
from distseq.models.temporal.evaluation.protocol import Protocol as Protocol
from distseq.models.temporal.evaluation.protocol import parts as parts
from distseq.models.temporal.evaluation.view import in_mode as in_mode
