"""A finished run as a folder that works without it.

A ranking model is written by torch.export (and ONNX), a language model's adapter as it is or merged. Other arguments go
to the run's config, such as --data.root DIR.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from msmrec.artifacts import InputError
from msmrec.ctr.head import LlamaCTR
from msmrec.finished_run import open_run
from msmrec.serving.export import export, refuse_existing
from msmrec.serving.export_adapter import export_adapter


def main(args: Sequence[str]) -> None:
    """Writes the folder and prints how it compares with the checkpoint."""
    parser = argparse.ArgumentParser(prog="msmrec export", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=Path, help="run folder")
    parser.add_argument("--out", required=True, type=Path, help="folder to write; must not be there yet")
    parser.add_argument("--onnx", action="store_true", help="write model.onnx too (pip install 'msmrec[onnx]')")
    parser.add_argument("--merge", action="store_true", help="LlamaCTR: add the adapter to the base model's weights")
    given, overrides = parser.parse_known_args(args)
    refuse_existing(given.out)
    run = open_run(given.run, overrides)
    if isinstance(run.model, LlamaCTR):
        if given.onnx:
            raise InputError("--onnx is for ranking models; LlamaCTR leaves an adapter, or with --merge a whole model")
        print(json.dumps(export_adapter(run, given.out, given.merge), indent=2))
    elif given.merge:
        raise InputError(f"--merge is for LlamaCTR; {type(run.model).__name__} has no adapter")
    else:
        print(json.dumps(export(run, given.out, given.onnx)["checked"], indent=2))
    print(given.out)
