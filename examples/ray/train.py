"""A training script for a Ray cluster. Models of your own lie beside it: workers import them as this script does.

With what distseq needs, not distseq:   cd examples/ray && distseq submit -- python train.py
With distseq installed on the cluster:  cd examples/ray && ray job submit --working-dir . -- python train.py
From a checkout, nothing installed:     ray job submit --working-dir . -- python examples/ray/train.py
With the cluster launcher:              ray submit examples/ray/cluster.yaml examples/ray/train.py
"""

import sys
from pathlib import Path

import distseq

if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else None
    result = distseq.train(Path(__file__).with_name("job.toml"), out=out)
    for name, model in result.summary["models"].items():
        print(f"{name}: {model['bits_per_char']:.3f} bits/char held out")
