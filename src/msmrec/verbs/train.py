"""What train.py does, where the project's folder is not at hand, and for `command.train_in_child`."""

from collections.abc import Sequence

from msmrec.arguments import arguments


def main(args: Sequence[str]) -> None:
    """Takes the arguments of train.py. Whether configs are there is said before torch and Lightning are imported."""
    words = arguments(args)
    from msmrec.cli import train

    train(words)
