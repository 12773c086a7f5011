"""Trains one config: python train.py --config msmrec_ml1m.yaml; see --help."""

from msmrec.cli import main, train

if __name__ == "__main__":
    main(train)
