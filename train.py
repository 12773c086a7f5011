"""Trains one config: python train.py --config msmrec_ml1m.yaml; see --help."""

from msmrec.cli import train
from msmrec.command import main

if __name__ == "__main__":
    main(train)
