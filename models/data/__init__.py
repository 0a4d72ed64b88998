"""Data sets: readers, generators and the interface that they share."""

from distseq.models.data.dataset import Dataset as Dataset
from distseq.models.data.dataset import open_dataset as open_dataset
