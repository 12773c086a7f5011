"""python -m msmrec VERB: the steps before and beside a training.

    train     --config C   what train.py does, where the project's folder is not at hand
    prepare   --config C   writes the dataset folder of a config and prints its counts
    describe  --config C   writes the modality texts of its items and prints their coverage; --dry-run prints what a
                           language model would be asked and what that would cost, --retry asks again where it failed
    embed     --config C   encodes those texts and prints the shape of the vectors
    compare   RUN [RUN ..] prints one table over runs and seeds, with intervals and tests; folders of runs count too;
                           --page FILE.html writes a page with slices, curves and cost beside it
    suite     NAME         prints a paper's table and trains what that needs first; --dry-run prints what would run and
                           how long that takes
    report    RUN [RUN ..] writes report.html into each run, with the sections that ask the model
    slices    RUN [RUN ..] prints the runs' test metrics by popularity of the target and activity of the user
    as_published RUN ..    prints click models' test metrics as RALLRec's published code would have scored them, too
    faithfulness C [C ..]  prints how far the texts of one or more configs rest on what is known about the items
    analyse   RUN          writes what the gate of a run of MSMRec does to RUN/analysis/ and prints the main tables
    agreement SHEET ..     prints how far people who filled in sheets of texts agree, and what they think of them
    recommend --run R      writes the best unseen items of users (--users FILE) or of new ones (--history FILE)
    score     --run R      writes a click model's probabilities for pairs of a user and an item (--pairs FILE)
    export    --run R      writes a run's model as a folder that recommends without dataset and texts
    explore   --run R      opens a local page: a user's history, recommendations, and why
    demo                   trains SASRec and MSMRec on a generated dataset and shows what the gate learned

prepare, describe and embed take the same overrides as train.py and do only what is not done yet.
"""

import importlib
import pkgutil
import sys

from msmrec import command, verbs


def main() -> None:
    """Imports the verb's module, and nothing for the others, so that this page is there at once."""
    command.main(_verb, lambda: str(__doc__))


def _verb() -> None:
    if sys.argv[1] not in {module.name for module in pkgutil.iter_modules(verbs.__path__)}:
        print(__doc__)
        sys.exit(2)
    importlib.import_module(f"msmrec.verbs.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
