"""What the click head takes at Llama 3.1 8B's shape: operations and memory, beside the transformers Trainer's recipe.

    python benchmarks/llama_8b.py

Nothing is timed and no GPU is needed: the steps run on tensors that have a shape and a type and no values (torch's
FakeTensorMode), while the operations of products and attention are counted, and the bytes of all tensors alive. So
this says what a GPU has to do, not how fast it does it. What it leaves out: the allocator's fragments, kernels' own
work space, and bitsandbytes, which in 8 bit takes half of the weights' bytes and some work for each product.

The ways are those of language_model.py, on the prompts of configs/rallrec_ml1m.yaml but for their histories, which are
the latest ratings, and their tokens, which are of a small tokenizer made of the prompts.
"""

import argparse
import os
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from common import emit
from language_model import LORA, SHAPES, VOCABULARY, Ours, Plain, drawn, own_tokenizer, random_llama
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from msmrec.columns import TRAIN
from msmrec.ctr import language_model
from msmrec.ctr.language_model import prompt_tokens
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.movielens import MovieLens
from msmrec.retrieval.prompts import MOVIE_TEMPLATE, Prompts

META = torch.device("meta")


class Memory(TorchDispatchMode):
    """Bytes of the tensors that were made inside and are alive, and their peak.

    Args:
        weights: are there already; views of them are no new memory.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive = {tensor.untyped_storage()._cdata for tensor in weights}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.alive:
                storage = tensor.untyped_storage()
                self.alive.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return made

    def _freed(self, storage: int, size: int) -> None:
        self.alive.discard(storage)
        self.now -= size


class Counted(NamedTuple):
    """Of one way, training or scoring."""

    operations: float  # all batches
    peak: int  # bytes besides the weights, of the largest batch


def without_values(model: nn.Module) -> None:
    """Puts fake tensors in the place of a model's weights on the meta device."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    made: Tensor = torch.empty(tensor.shape, dtype=tensor.dtype)
                    tensors[name] = nn.Parameter(made, tensor.requires_grad) if tensors is module._parameters else made


def weight_bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def count(model: nn.Module, batches: list[Any], loss: Callable[[Any], Tensor], train: bool) -> Counted:
    """Operations of all batches, and the peak of the largest."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    model.train(train)

    def step(batch: Any) -> None:
        with nullcontext() if train else torch.no_grad():
            value = loss(batch)
            if train:
                value.backward()
                optimizer.step()
                optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            step(batch)
    with Memory([*model.parameters(), *model.buffers()]) as memory:  # apart: the other keeps what is recomputed
        step(max(batches, key=positions))
    return Counted(counter.get_total_flops(), memory.peak)


def positions(batch: Any) -> int:
    """Of a batch, padding included."""
    ids: Tensor = batch["input_ids"] if isinstance(batch, dict) else batch.input_ids
    return ids.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16, help="samples of a step")
    parser.add_argument("--k", type=int, default=30)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--layers", type=int, default=SHAPES["8b"]["num_hidden_layers"])
    args = parser.parse_args()
    SHAPES["8b"]["num_hidden_layers"] = args.layers
    root, cache = Path(os.environ.get("MSMREC_DATA", "data")), Path(os.environ.get("MSMREC_CACHE", "artifacts"))
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, split="global_time", min_history=5)
    prompts = Prompts(prepare(MovieLens("ml-1m"), root, cache, protocol), MOVIE_TEMPLATE, 3.0)
    rows, label = drawn(prompts.dataset, TRAIN, args.samples, args.k, args.window)
    tokenizer = own_tokenizer(prompts)

    whole = get_peft_model(
        random_llama("8b", META),
        LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    plain = object.__new__(Plain)  # its samples and batches, without a Trainer
    plain.tokens, plain.k, (plain.yes, plain.no) = prompt_tokens(tokenizer, prompts, 2048), args.k, (1, 2)
    samples = plain.samples(rows, label)
    padded = [plain.collate(samples[k : k + args.batch]) for k in range(0, len(samples), args.batch)]

    def trainer_loss(batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = whole(**batch, use_cache=False)
        made.logits = made.logits.float()  # as the Trainer hands them on
        return made.loss  # type: ignore[no-any-return]

    def ours(window: int, recompute: bool) -> tuple[nn.Module, list[Any], Callable[[Any], Tensor]]:
        with patch.object(language_model, "load_causal_lm", lambda *_: (tokenizer, random_llama("8b", META))):
            made = language_model.load("", MOVIE_TEMPLATE, "none", LORA, recompute)
        made.decoder.config._attn_implementation = "sdpa"  # as on a GPU
        made = made._replace(answers=torch.zeros(made.answers.shape))
        head = Ours(made, prompts, args.k, window, args.batch)
        return (
            made.decoder,
            list(head.batches(rows, label, shuffle=False)),
            lambda batch: F.binary_cross_entropy_with_logits(head.logits(batch), batch.label),
        )

    several = f"ours, windows of {args.window}"
    ways = {
        "transformers Trainer": (whole, padded, trainer_loss),
        "ours": ours(1, False),
        "ours, gradient_checkpointing": ours(1, True),
        several: ours(args.window, False),
        f"{several}, gradient_checkpointing": ours(args.window, True),
    }
    weights, found = weight_bytes(whole), {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for who, (model, batches, loss) in ways.items():
            without_values(model)
            found[who] = [count(model, batches, loss, train) for train in (True, False)]
    table, mean = [], sum(map(len, samples)) / len(samples)
    first = found["transformers Trainer"]
    for who, (training, scoring) in found.items():
        table.append(
            {
                "way": who,
                "training, TFLOP a sample": f"{training.operations / len(rows) / 1e12:.2f}",
                "training, Trainer's times this": f"{first[0].operations / training.operations:.2f}",
                "peak beside the weights, GB": f"{training.peak / 1e9:.1f}",
                "with them, of the Trainer's": f"{(weights + training.peak) / (weights + first[0].peak):.2f}",
                "scoring, TFLOP a sample": f"{scoring.operations / len(rows) / 1e12:.2f}",
                "scoring, Trainer's times this": f"{first[1].operations / scoring.operations:.2f}",
            }
        )
    emit(
        "counted",
        {},
        ("torch", "transformers", "peft"),
        note=f"{len(rows)} samples in steps of {args.batch}, K {args.k}, {mean:.0f} tokens a prompt on the average,"
        f" weights in bfloat16 ({weights / 1e9:.1f} GB), vocabulary {VOCABULARY['8b']:,}; counted, not measured",
        table=table,
    )


if __name__ == "__main__":
    main()
