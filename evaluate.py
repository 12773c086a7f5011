"""python evaluate.py --run FOLDER [--KEY VALUE]: evaluates a run's best checkpoint again and prints its metrics.

    --run FOLDER          a run, as train.py left it
    --split val           the validation targets instead of the test ones
    --ckpt_path FILE      another checkpoint than the run's best
    --config CONFIG       instead of --run: a config, with --ckpt_path FILE where its model is trained
    --KEY VALUE           any field, as for train.py: --data.root FOLDER where the raw files have moved

The run's files stay as they are.
"""

from msmrec.command import main


def evaluate() -> None:
    """Imported here, so that the page above needs no torch."""
    from msmrec.finished_run import evaluate

    evaluate()


if __name__ == "__main__":
    main(evaluate, lambda: str(__doc__))
