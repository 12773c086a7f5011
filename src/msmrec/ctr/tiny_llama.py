"""A small Llama that the project makes itself, for machines without weights: tokenizer, pre-training, files.

It is trained on the catalogue's texts and on prompts of the training part with their answers, and saved in the Hugging
Face format; then it goes through the very path that Llama 3.1 goes: 8-bit, LoRA, Yes and No.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from msmrec.artifacts import build_once, fingerprint
from msmrec.columns import RATING, TEXT, TRAIN
from msmrec.ctr.batches import BucketLoader
from msmrec.ctr.language_model import answer_token, cpu_attention, prompt_tokens
from msmrec.data.datamodule import RecDataModule
from msmrec.data.samples import sample_rows
from msmrec.models.base import Module
from msmrec.retrieval.history import in_time, recent_history
from msmrec.retrieval.prompts import MOVIE_TEMPLATE, Prompts, PromptTemplate
from msmrec.text.item_text import ItemText

BEGIN, END, SOFT = "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"  # named as in Llama 3


class TextBatch(NamedTuple):
    """Token sequences for language modelling."""

    input_ids: Tensor  # (B, T) padded with 0 on the right
    target: Tensor  # (B, T) the next token, -100 where nothing is to be learned

    @property
    def num_tokens(self) -> int:
        """Positions, padding included."""
        return self.input_ids.numel()


class Corpus(BucketLoader):
    """Batches of texts, and of prompts with their answers.

    Args:
        flat: (X,) tokens of all sequences. length: (S,) of each.
        known: (S,) tokens at the start of each that are given and not learned.
        **batches: see BucketLoader.
    """

    def __init__(self, flat: np.ndarray, length: np.ndarray, known: np.ndarray, **batches: Any) -> None:
        super().__init__(length, **batches)
        self.flat, self.known, self.start = flat, known, np.cumsum(length) - length

    def __iter__(self) -> Iterator[TextBatch]:
        for group, width in self.groups():
            length = self.plan.length[group]
            place = np.arange(width)
            real = place < length[:, None]
            tokens = self.flat[np.where(real, self.start[group][:, None] + place, 0)].astype(np.int64)
            learned = real[:, 1:] & (place[1:] >= self.known[group][:, None])
            target = np.where(learned, tokens[:, 1:], -100)
            yield TextBatch(
                torch.from_numpy(np.where(real, tokens, 0)[:, :-1]).to(self.device, non_blocking=True),
                torch.from_numpy(target).to(self.device, non_blocking=True),
            )


class TinyLlama(Module):
    """Pre-trains a small LlamaForCausalLM on texts, and on the answers of prompts; leaves `model/` in the run folder.

    Args:
        text: whose texts it reads.
        prompt: the words of the prompts.
        vocab_size: of the tokenizer, trained on the texts and on pieces of prompts.
        hidden_size: width of the Llama.
        num_layers: its blocks.
        num_heads: attention heads of a block.
        intermediate_size: width of a block's feed-forward part.
        max_tokens: longest sequence.
        k: ratings in a prompt, the latest.
        train_samples: prompts of an epoch.
        answer_weight: how much more the answer of a prompt counts than a token of a text.
        tokens_per_batch: positions of a batch.
        **optimisation: see Module.
    """

    monitor = "val/answer_auc"
    headline = ("answer_auc", "log_loss")

    def __init__(
        self,
        text: ItemText,
        prompt: PromptTemplate = MOVIE_TEMPLATE,
        vocab_size: int = 4096,
        hidden_size: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        intermediate_size: int = 384,
        max_tokens: int = 512,
        k: int = 15,
        train_samples: int = 50_000,
        answer_weight: float = 10.0,
        tokens_per_batch: int = 16_384,
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        self.text, self.prompt, self.vocab_size, self.max_tokens, self.k = text, prompt, vocab_size, max_tokens, k
        self.hidden_size, self.num_layers, self.num_heads = hidden_size, num_layers, num_heads
        self.intermediate_size, self.train_samples = intermediate_size, train_samples
        self.answer_weight, self.tokens_per_batch = answer_weight, tokens_per_batch

    def setup(self, stage: str) -> None:
        """Trains the tokenizer, once, and makes the model."""
        from transformers import LlamaConfig, LlamaForCausalLM

        if hasattr(self, "model"):
            return
        data = self.data
        self.prompts = Prompts(data.dataset, self.prompt, data.label_above)
        self.texts = self.text.texts(data.dataset, data.root, data.cache).filter(pl.col(TEXT) != "")[TEXT].to_list()
        self.tokenizer = self._tokenizer(data)
        self.tokens = prompt_tokens(self.tokenizer, self.prompts, self.max_tokens)
        self.yes, self.no = (answer_token(self.tokenizer, a) for a in (self.prompt.yes, self.prompt.no))
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(self.tokenizer), hidden_size=self.hidden_size, num_hidden_layers=self.num_layers,
                num_attention_heads=self.num_heads, num_key_value_heads=self.num_heads,
                intermediate_size=self.intermediate_size, max_position_embeddings=max(1024, self.max_tokens),
                tie_word_embeddings=False, bos_token_id=self.tokenizer.bos_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
            )
        )  # fmt: skip
        cpu_attention(self.model)

    def _tokenizer(self, data: RecDataModule) -> Any:
        """A byte-level BPE like Llama 3's, trained on texts and on the pieces of prompts."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        pieces = [*self.texts, *self.prompts.heads[:2000], *self.prompts.entries, *self.prompts.tails]
        corpus = [*pieces, self.prompt.system, self.prompt.history, *[self.prompt.yes, self.prompt.no] * 100]
        key = fingerprint(self.vocab_size, corpus)

        def build(folder: Path) -> None:
            tokenizer = Tokenizer(models.BPE())
            split = (
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,4}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"
            )
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(split), behavior="isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=self.vocab_size, special_tokens=[BEGIN, END, SOFT], show_progress=False,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            )  # fmt: skip
            tokenizer.train_from_iterator(corpus, trainer)
            made: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
                tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END,
                additional_special_tokens=[SOFT],
            )  # fmt: skip
            made.save_pretrained(folder)

        folder = build_once(data.cache / "tokenizers" / key, build)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    # -- samples ------------------------------------------------------------------------------------------------------

    def _with_answers(self, data: RecDataModule, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and lengths of prompts with their answer at the end."""
        made = self.tokens(rows, in_time(recent_history(data.dataset, rows, self.k)))
        clicked = data.dataset.column(RATING)[rows] > data.label_above
        flat = np.insert(made.input_ids, np.cumsum(made.length), np.where(clicked, self.yes, self.no))
        return flat, made.length + 1

    def train_loader(self, data: RecDataModule) -> Corpus:
        """All texts, and prompts: others each epoch where `trainer.reload_dataloaders_every_n_epochs` is 1."""
        rows = sample_rows(data.dataset, TRAIN)
        order = np.random.default_rng(data.seed).permutation(len(rows))
        count = min(self.train_samples, len(rows))
        epoch = self.current_epoch if self.trainer.reload_dataloaders_every_n_epochs else 0  # type: ignore[attr-defined]
        rows = rows[order[(epoch * count + np.arange(count)) % len(rows)]]
        flat, length = self._with_answers(data, rows)
        ids = self.tokenizer(self.texts, add_special_tokens=False, truncation=True, max_length=self.max_tokens - 2)
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        texts = [[begin, *sequence, end] for sequence in ids["input_ids"]]
        more = np.concatenate([np.asarray(text, np.int32) for text in texts])
        lengths = np.array([len(text) for text in texts])
        flat, known = np.concatenate([flat, more]), np.concatenate([length - 1, np.ones_like(lengths)])
        return self._corpus(data, flat, np.concatenate([length, lengths]), known, shuffle=True)

    def eval_loader(self, data: RecDataModule, split: int) -> Corpus:
        """Two thousand prompts of the part, spread over it."""
        rows = sample_rows(data.dataset, split)
        flat, length = self._with_answers(data, rows[:: max(1, len(rows) // 2000)])
        return self._corpus(data, flat, length, length - 1, shuffle=False)

    def _corpus(
        self, data: RecDataModule, flat: np.ndarray, length: np.ndarray, known: np.ndarray, shuffle: bool
    ) -> Corpus:
        device, rank, world_size = data.place()
        return Corpus(
            flat, length, known, tokens_per_batch=self.tokens_per_batch, device=device, shuffle=shuffle,
            seed=data.seed, rank=rank, world_size=world_size,
        )  # fmt: skip

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """A sample only."""
        return {"evaluated_on": "2,000 prompts of the part"}

    # -- training -----------------------------------------------------------------------------------------------------

    def _logits(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """(X, V) logits where something is to be learned, and only there, and (X,) the tokens that come."""
        states = self.model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        learned = batch.target >= 0
        return self.model.lm_head(states[learned]).float(), batch.target[learned]

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """Cross-entropy of the next token, summed over texts and answers; an answer counts `answer_weight` times."""
        logits, target = self._logits(batch)
        is_answer = (target == self.yes) | (target == self.no)
        weight = 1 + (self.answer_weight - 1) * is_answer.float()
        loss: Tensor = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(target))
        return loss

    def evaluate(self, batch: TextBatch) -> tuple[Tensor, ...]:
        """(B,) log odds of Yes at the answers, and whether it is the answer."""
        logits, target = self._logits(batch)
        return logits[:, self.yes] - logits[:, self.no], target == self.yes

    def finish(self, prefix: str, columns: list[Tensor]) -> dict[str, float]:
        """AUC and log loss of the answers."""
        odds, clicked = columns
        log_loss = F.binary_cross_entropy_with_logits(odds, clicked.float())
        return {"answer_auc": float(binary_auroc(odds.sigmoid(), clicked.long())), "log_loss": float(log_loss)}

    def save(self, run: Path) -> None:
        """Writes model/: weights and tokenizer in the Hugging Face format."""

        def build(folder: Path) -> None:
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

        build_once(run / "model", build)
