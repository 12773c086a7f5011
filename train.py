"""python train.py --config CONFIG [--config OVER] [--KEY VALUE]: trains a config and tests it, in one run folder.

    --config CONFIG       a file, or a name in configs/ (listed below); another one is laid over it
    --KEY VALUE           any field of it, as --model.init_args.lr 0.002 or --trainer.max_epochs 3
    --seed_everything N   the seed; 0 if not given
    --data.root FOLDER    the raw files; MSMREC_DATA if not given; what is not there is downloaded
    --run_dir FOLDER      the run; runs/<config>/seed=<seed> if not given
    --print_config        prints the config with every field as it would run, and ends
    --config CONFIG --help      every field with type, default and meaning
    --model.help MSMRec         those of one class

The same command goes on with a run that was stopped, and leaves a finished one alone.
"""

import sys

from msmrec.arguments import headlines
from msmrec.command import main
from msmrec.verbs import train

if __name__ == "__main__":
    main(lambda: train.main(sys.argv[1:]), lambda: f"{__doc__}\nconfigs:\n{headlines()}")
