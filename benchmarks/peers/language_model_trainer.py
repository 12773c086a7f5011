"""The transformers Trainer as it comes, on the samples of ../language_model.py and with its arguments."""

import sys

from language_model import main

if __name__ == "__main__":
    sys.argv += ["--ways", "trainer"]
    main()
