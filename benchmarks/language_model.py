"""Tokens a second of the click head and of the plain recipe, on the same random Llama: training and scoring.

    OMP_NUM_THREADS=2 python benchmarks/language_model.py --shape tiny --quantisation 8bit none
    python benchmarks/language_model.py --shape 8b --quantisation 8bit none --samples 64     # on a GPU

Ours: batches of like length, padded on the right without a mask, two rows of the output matrix at the last position.
Plain: batches in the order of the samples, padded on the left with a mask, logits of the whole vocabulary at every
position, as a causal language model's own loss and `generate` have it (the recipe of the transformers Trainer).
Prompts are random tokens of lengths that vary; weights are random. Quality is no matter here.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

SHAPES = {
    "tiny": {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
    "8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
    },
}
VOCABULARY = {"tiny": 4096, "8b": 128_256}
YES, NO = 10, 11


def lengths(count: int, shape: str) -> np.ndarray:
    """Tokens of prompts: about 118 for the tiny one's, 420 for Llama 3.1's."""
    mean, spread = (118, 20) if shape == "tiny" else (420, 70)
    drawn = np.random.default_rng(0).normal(mean, spread, count)
    return np.clip(drawn, mean / 2, mean * 1.6).astype(np.int64)


def ours(model: torch.nn.Module, prompts: list[Tensor], budget: int, device: torch.device) -> Iterator[Tensor]:
    """Log odds of a batch at a time."""
    answers = model.get_output_embeddings().weight[[YES, NO]].detach().float()
    order = sorted(range(len(prompts)), key=lambda k: -len(prompts[k]))
    begin = 0
    while begin < len(order):
        width = len(prompts[order[begin]])
        group = order[begin : begin + max(1, budget // width)]
        begin += len(group)
        ids = torch.zeros(len(group), width, dtype=torch.long)
        for row, k in enumerate(group):
            ids[row, : len(prompts[k])] = prompts[k]
        last = torch.tensor([len(prompts[k]) - 1 for k in group], device=device)
        states = model.model(input_ids=ids.to(device), use_cache=False).last_hidden_state
        both = states[torch.arange(len(group), device=device), last].float() @ answers.T
        yield both[:, 0] - both[:, 1]


def plain(model: torch.nn.Module, prompts: list[Tensor], budget: int, device: torch.device) -> Iterator[Tensor]:
    """Log odds of a batch at a time."""
    size = max(1, budget // max(len(p) for p in prompts))
    for begin in range(0, len(prompts), size):
        group = prompts[begin : begin + size]
        width = max(len(p) for p in group)
        ids, mask = torch.zeros(len(group), width, dtype=torch.long), torch.zeros(len(group), width, dtype=torch.long)
        for row, prompt in enumerate(group):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits[:, -1].float()
        yield logits[:, YES] - logits[:, NO]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="tiny")
    parser.add_argument("--quantisation", nargs="+", choices=["none", "8bit", "4bit"], default=["8bit", "none"])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--budget", type=int, default=8192, help="positions in a batch")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.shape} Llama, {args.samples} prompts, {where}, torch {torch.__version__}\n")
    print("| weights | way | training tokens/s | scoring tokens/s | peak memory, GiB |")
    print("|---|---|---|---|---|")
    vocabulary, drawn = VOCABULARY[args.shape], lengths(args.samples, args.shape)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(20, vocabulary, (int(n),), generator=generator) for n in drawn]
    with tempfile.TemporaryDirectory() as folder:
        config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=8192, **SHAPES[args.shape])
        torch.set_default_dtype(torch.bfloat16)
        with device:
            LlamaForCausalLM(config).save_pretrained(folder)
        torch.set_default_dtype(torch.float32)
        for quantisation in args.quantisation:
            for name, way in (("ours", ours), ("plain", plain)):
                print(measure(folder, quantisation, name, way, prompts, args.budget, device))


def measure(
    folder: str,
    quantisation: str,
    name: str,
    way: Callable[..., Iterator[Tensor]],
    prompts: list[Tensor],
    budget: int,
    device: torch.device,
) -> str:
    """One row of the table."""
    from peft import LoraConfig, get_peft_model

    options = {"dtype": torch.bfloat16}
    if quantisation != "none":
        options["quantization_config"] = BitsAndBytesConfig(**{f"load_in_{quantisation}": True})
    model = AutoModelForCausalLM.from_pretrained(Path(folder), device_map={"": device}, **options)
    get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    tokens = sum(map(len, prompts))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def train() -> None:
        for odds in way(model, prompts, budget, device):
            F.binary_cross_entropy_with_logits(odds, torch.ones_like(odds)).backward()
            optimizer.step()
            optimizer.zero_grad()

    def score() -> None:
        with torch.no_grad():
            for odds in way(model, prompts, budget, device):
                odds.sum().item()

    rates = []
    for work in (train, score):
        seconds = []
        for repetition in range(3):  # the first warms up
            begun = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repetition:
                seconds.append(time.perf_counter() - begun)
        rates.append(tokens / min(seconds))
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else rss()
    return f"| {quantisation} | {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {peak:.2f} |"


def rss() -> float:
    """Peak memory of the process in GiB; on a CPU it does not go down from row to row."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
