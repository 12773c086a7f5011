"""Click prediction by a language model: samples a second and AUC, ours beside the transformers Trainer as it comes.

    OMP_NUM_THREADS=2 python benchmarks/language_model.py --base runs/tiny_llama_ml1m/seed=0/model
    python benchmarks/language_model.py --shape 8b --quantisation 8bit none --samples 256        # on a GPU

All read the same samples of MovieLens 1M (in MSMREC_DATA), in windows of neighbouring ones, and train LoRA on q and v
with AdamW, in steps of equally many samples; a step's seconds hold all that it takes but tokenising, and AUC is that of
the same test samples after one pass over the training samples.

trainer: prompts with the K latest ratings, in the order of the samples, padded on the left with a mask, logits of the
    whole vocabulary at every position (`Trainer.train`, `Trainer.predict`).
ours: the same prompts, of like length, padded on the right, two rows of the output matrix at the last position.
window: K to K + window - 1 ratings, up to `window` neighbouring samples in one sequence (Retriever.window).

`make bench` runs the Trainer by peers/language_model_trainer.py, in a process without our settings of PyTorch.

Without a base, or at the 8b shape, weights are random: then AUC says nothing.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from common import emit, peak_mb
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from msmrec.columns import RATING, TEST, TRAIN
from msmrec.ctr.batches import PromptLoader
from msmrec.ctr.language_model import LanguageModel, Lora, load, prompt_tokens
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.samples import sample_rows
from msmrec.data.sources.movielens import MovieLens
from msmrec.llm.weights import load_causal_lm
from msmrec.retrieval.history import history_start, in_time, recent_history
from msmrec.retrieval.prompts import Prompts, PromptTemplate

SHAPES = {
    # As tiny_llama_ml1m's but for the width, 96 there: in 4 bits bitsandbytes wants multiples of 64 on a CPU.
    "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
    "8b": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336,
    },
}  # fmt: skip
VOCABULARY = {"tiny": 4096, "8b": 128_256}
TEMPLATE = PromptTemplate(  # as in configs/tiny_llama_ml1m.yaml
    system="Will the user like the movie? Yes or No.", profile="{gender}, {age}, {occupation}.", history="Rated:",
    entry="{rating} {title}", question="Next {title} {genres}",
)  # fmt: skip
LORA = Lora(8, 16, 0.0, ["q_proj", "v_proj"])
WAYS = {"trainer": "transformers Trainer", "ours": "ours", "window": "ours, windows"}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Ours:
    """The click head's batches, forward pass and score, without Lightning around them."""

    def __init__(self, made: LanguageModel, prompts: Prompts, k: int, window: int, batch: int) -> None:
        self.decoder: Any = made.decoder
        self.states = made.states
        self.answers, self.k, self.window, self.batch = made.answers.to(DEVICE), k, window, batch
        self.tokens = prompt_tokens(made.tokenizer, prompts, 2048)
        trained = [parameter for parameter in self.decoder.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)

    def batches(self, rows: np.ndarray, label: np.ndarray, shuffle: bool) -> PromptLoader:
        history = in_time(recent_history(self.tokens.prompts.dataset, rows, self.k, self.window))
        options: dict[str, Any] = {"share": self.window > 1, "device": DEVICE, "shuffle": shuffle}
        whole = PromptLoader(self.tokens, rows, history, label, tokens_per_batch=1 << 30, **options)
        positions = int(whole.plan.length.sum() / len(rows) * self.batch)  # about `batch` samples
        return PromptLoader(self.tokens, rows, history, label, tokens_per_batch=positions, **options)

    def logits(self, batch: Any) -> Tensor:
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            states = self.states(
                (batch.sequence, batch.last), attention_mask=batch.mask(), position_ids=batch.position,
                inputs_embeds=self.decoder.get_input_embeddings()(batch.input_ids),
            )  # fmt: skip
        both = states.float() @ self.answers.T
        return both[:, 0] - both[:, 1]

    def train(self, rows: np.ndarray, label: np.ndarray) -> None:
        self.decoder.train()
        for batch in self.batches(rows, label, shuffle=True):
            F.binary_cross_entropy_with_logits(self.logits(batch), batch.label).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def score(self, rows: np.ndarray, label: np.ndarray) -> tuple[Tensor, Tensor]:
        self.decoder.eval()
        with torch.no_grad():
            parts = [(self.logits(batch), batch.label) for batch in self.batches(rows, label, shuffle=False)]
        logits, labels = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        return logits, labels


class Plain:
    """The transformers Trainer with peft, as their examples have it."""

    def __init__(self, base: str, quantisation: Any, prompts: Prompts, k: int, batch: int, folder: Path) -> None:
        from peft import LoraConfig, get_peft_model

        tokenizer, model = load_causal_lm(base, quantisation, torch.bfloat16)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        self.tokens, self.k = prompt_tokens(tokenizer, prompts, 2048), k
        self.yes, self.no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No"))
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=batch, per_device_eval_batch_size=batch,
            num_train_epochs=1, learning_rate=1e-3, lr_scheduler_type="constant", bf16=True, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=DEVICE.type == "cpu",
        )  # fmt: skip
        self.trainer = transformers.Trainer(
            model=get_peft_model(model, config), args=arguments, data_collator=self.collate,
            preprocess_logits_for_metrics=lambda logits, _: logits[:, -2, [self.yes, self.no]].float(),
        )  # fmt: skip
        self.trainer.remove_callback(transformers.PrinterCallback)

    def samples(self, rows: np.ndarray, label: np.ndarray) -> list[list[int]]:
        """Tokens of prompts with their answer."""
        made = self.tokens(rows, in_time(recent_history(self.tokens.prompts.dataset, rows, self.k)))
        prompts = np.split(made.input_ids, np.cumsum(made.length)[:-1])
        return [
            [*prompt.tolist(), self.yes if liked else self.no] for prompt, liked in zip(prompts, label, strict=True)
        ]

    @staticmethod
    def collate(samples: list[list[int]]) -> dict[str, Tensor]:
        width = max(map(len, samples))
        ids, mask = torch.zeros(len(samples), width, dtype=torch.long), torch.zeros(len(samples), width).long()
        for row, sample in enumerate(samples):
            ids[row, width - len(sample) :], mask[row, width - len(sample) :] = torch.tensor(sample), 1
        labels = torch.full_like(ids, -100)
        labels[:, -1] = ids[:, -1]  # the answer is all that is learned
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def train(self, samples: list[list[int]]) -> None:
        self.trainer.train_dataset = samples
        self.trainer.train()

    def score(self, samples: list[list[int]]) -> Tensor:
        both: Tensor = torch.from_numpy(self.trainer.predict(samples).predictions)
        return both[:, 0] - both[:, 1]


def drawn(dataset: Dataset, part: int, count: int, k: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """(S,) samples of a part, whole windows of users at random, and (S,) whether they are liked."""
    rows = sample_rows(dataset, part)
    group = np.unique(history_start(dataset, rows, k, window), return_inverse=True)[1]
    rows = rows[np.argsort(np.random.default_rng(0).permutation(group.max() + 1)[group], kind="stable")][:count]
    return rows, dataset.column(RATING)[rows] > 3


def seconds(work: Callable[[], Any], repetitions: int, clock: Callable[[], float]) -> list[float]:
    taken = []
    for _ in range(repetitions):
        begun = clock()
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        taken.append(clock() - begun)
    return taken


class Measured(NamedTuple):
    """Seconds of each repetition, AUC, and the most memory: of the GPU, or of the process so far."""

    training: list[float]
    scoring: list[float]
    auc: float
    peak_mb: int


def measure(way: str, args: argparse.Namespace, quantisation: str, base: str, dataset: Dataset) -> Measured:
    """One way with weights of one kind."""
    clock = time.process_time if args.processor_time else time.perf_counter
    prompts = Prompts(dataset, TEMPLATE, 3.0)
    training, scored = (drawn(dataset, part, args.samples, args.k, args.window) for part in (TRAIN, TEST))
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        if way == "trainer":
            peer = Plain(base, quantisation, prompts, args.k, args.batch, Path(folder))
            to_train, to_score = peer.samples(*training), peer.samples(*scored)
            peer.train(to_train[: args.batch])  # warms up, as below
            trained = seconds(lambda: peer.train(to_train), 1, clock)
            auc = binary_auroc(peer.score(to_score), torch.from_numpy(scored[1]).long())
            trained += seconds(lambda: peer.train(to_train), args.repetitions - 1, clock)
            scoring = seconds(lambda: peer.score(to_score), args.repetitions, clock)
        else:
            window = args.window if way == "window" else 1
            made = load(base, TEMPLATE, quantisation, LORA, gradient_checkpointing=False)
            if quantisation == "none":
                made.decoder.to(DEVICE)
            ours = Ours(made, prompts, args.k, window, args.batch)
            ours.train(*(column[: args.batch] for column in training))
            trained = seconds(lambda: ours.train(*training), 1, clock)
            logits, label = ours.score(*scored)
            auc = binary_auroc(logits, label.long())
            trained += seconds(lambda: ours.train(*training), args.repetitions - 1, clock)
            scoring = seconds(lambda: ours.score(*scored), args.repetitions, clock)
    peak = torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else peak_mb()
    return Measured(trained, scoring, round(float(auc), 4), round(peak))


def own_tokenizer(prompts: Prompts) -> Any:
    """A tokenizer of the prompts' words."""
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    words = [*prompts.heads, *prompts.entries, *prompts.tails, *["Yes", "No"] * 100]
    made.train_from_iterator(words, vocab_size=VOCABULARY["tiny"], special_tokens=["<s>"], show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        made.save(f"{folder}/tokenizer.json")
        return transformers.PreTrainedTokenizerFast(
            tokenizer_file=f"{folder}/tokenizer.json", bos_token="<s>", pad_token="<s>"
        )


def random_llama(shape: str, device: torch.device) -> Any:
    """A Llama with random weights in bfloat16."""
    config = transformers.LlamaConfig(vocab_size=VOCABULARY[shape], max_position_embeddings=8192, **SHAPES[shape])
    torch.manual_seed(0)  # the same in the process of the Trainer
    torch.set_default_dtype(torch.bfloat16)
    with device:
        made = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="tiny")
    parser.add_argument("--base", help="folder of a language model, e.g. runs/tiny_llama_ml1m/seed=0/model")
    parser.add_argument("--quantisation", nargs="+", choices=["none", "8bit", "4bit"], default=["4bit", "8bit", "none"])
    parser.add_argument(
        "--ways", nargs="+", choices=["trainer", "ours", "window"], default=["trainer", "ours", "window"]
    )
    parser.add_argument("--samples", type=int, default=1024, help="trained on, and as many others scored")
    parser.add_argument("--batch", type=int, default=64, help="samples of a step")
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with OMP_NUM_THREADS=1")
    args = parser.parse_args()
    root, cache = Path(os.environ.get("MSMREC_DATA", "data")), Path(os.environ.get("MSMREC_CACHE", "artifacts"))
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, split="global_time", min_history=5)
    dataset = prepare(MovieLens("ml-1m"), root, cache, protocol)
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    random = args.base is None or args.shape != "tiny"
    with tempfile.TemporaryDirectory() as folder:
        base = args.base
        if random:
            lent = transformers.AutoTokenizer.from_pretrained(args.base) if args.base else None
            (lent or own_tokenizer(Prompts(dataset, TEMPLATE, 3.0))).save_pretrained(folder)
            random_llama(args.shape, DEVICE).save_pretrained(folder)
            base = folder
        for way in args.ways:
            kinds = [{"none": "bf16"}.get(quantisation, quantisation) for quantisation in args.quantisation]
            measured = [measure(way, args, quantisation, base, dataset) for quantisation in args.quantisation]
            measures, table = {}, []
            for kind, done in zip(kinds, measured, strict=True):
                rates = {}
                for work, taken in (("training on", done.training), ("scoring", done.scoring)):
                    measures[f"{kind}: {work} {args.samples:,} samples"] = taken
                    rates[f"{work.split()[0]}, samples/s"] = f"{args.samples / statistics.median(taken):,.0f}"
                row = {"way": WAYS[way], "weights": kind, **rates, "AUC": done.auc}
                table.append({**row, "GPU, MB" if DEVICE.type == "cuda" else "process so far, MB": done.peak_mb})
            emit(
                WAYS[way],
                measures,
                ("torch", "transformers", "peft", "bitsandbytes"),
                note=f"{args.shape} Llama, {where}; {args.samples:,} samples in steps of {args.batch}, K {args.k},"
                f" windows of {args.window}" + "; weights are random, AUC says nothing" * random,
                table=table,
            )


if __name__ == "__main__":
    main()
