"""Evaluates a run again: python evaluate.py --run runs/msmrec_ml1m/seed=0; see --help."""

from msmrec.command import main
from msmrec.finished import evaluate

if __name__ == "__main__":
    main(evaluate)
