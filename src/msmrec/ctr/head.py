"""Click prediction by a language model (RALLRec): LoRA on a quantised Llama, prompts with retrieved history."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.artifacts import InputError, atomic_file
from msmrec.columns import RATING, TRAIN, VAL
from msmrec.ctr.batches import PromptBatch, PromptLoader
from msmrec.ctr.language_model import LanguageModel, Lora, load, prompt_tokens, resolve, sliding_window
from msmrec.data.datamodule import RecDataModule
from msmrec.data.samples import sample_rows
from msmrec.item_vectors import run_vectors, standardised
from msmrec.llm.weights import Quantisation
from msmrec.models.click import ClickModule
from msmrec.models.projector import Alignment
from msmrec.retrieval.callback import RetrievalCallback
from msmrec.retrieval.prompts import MOVIE_TEMPLATE, Prompts, PromptTemplate, PromptTokens
from msmrec.retrieval.retriever import Retriever


class LlamaCTR(ClickModule):
    """A causal language model that reads a prompt and says Yes or No.

    The score is one softmax over two rows of the output matrix at the place of the answer, so the vocabulary's logits
    are never made: P(click) = sigmoid(h . (w_yes - w_no)). The loss is its cross-entropy: on the answer only.
    With `retriever.window` above 1 targets share sequences, each scored as its prompt alone would be (batches.py).

    Args:
        retriever: which earlier ratings a prompt holds.
        base: a folder in the Hugging Face format, a name on the model hub, or a run under `needs:` that left a model.
        prompt: the words; see PromptTemplate.
        max_tokens: longest prompt; the oldest ratings of a longer one are left out.
        train_samples: samples of an epoch, drawn from the training part.
        resample: draw others each epoch.
        val_samples: validate on as many, spread evenly over the part; None for all. The test is always on all.
        augment: the paper's mixed training: every sample twice, its history by rank and in time (once where these are
            the same). ReLLa's own mixes the latest ratings with the retrieved ones, which this does not.
        tokens_per_batch: positions of a training batch.
        quantisation: of the frozen weights: none, 8bit or 4bit.
        lora_rank: of the adapters; 0 trains nothing of the language model.
        lora_alpha: their scale is lora_alpha / lora_rank.
        lora_dropout: on their input.
        lora_targets: names of the layers that get one.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        soft_token: a token of the tokenizer that stands for an item's vector where the template says {soft}.
        soft: names of upstream runs under `needs:` whose item vectors enter as soft tokens, side by side.
        joint: trains a projector in this run; its vectors serve retrieval, and as soft tokens where the template asks.
        joint_weight: of the projector's InfoNCE beside the click loss.
        num_items: N, linked from the data.
        **optimisation: see Module.
    """

    exact_evaluation = False  # the frozen weights are in bfloat16 or less anyway; the last product is in float32
    prompts: Prompts
    tokens: PromptTokens
    language_model: nn.Module
    answers: Tensor
    answer_bias: Tensor
    soft_vectors: Tensor

    def __init__(
        self,
        num_items: int,
        retriever: Retriever,
        base: str = "meta-llama/Llama-3.1-8B-Instruct",
        prompt: PromptTemplate = MOVIE_TEMPLATE,
        max_tokens: int = 2048,
        train_samples: int = 8192,
        resample: bool = False,
        val_samples: int | None = None,
        augment: bool = True,
        tokens_per_batch: int = 16_384,
        quantisation: Quantisation = "8bit",
        lora_rank: int = 8,
        lora_alpha: int = 16,
        lora_dropout: float = 0.05,
        lora_targets: list[str] = ["q_proj", "v_proj"],  # noqa: B006 (read only)
        gradient_checkpointing: bool = False,
        soft_token: str = "<|reserved_special_token_0|>",
        soft: list[str] = [],  # noqa: B006
        joint: Alignment | None = None,
        joint_weight: float = 0.1,
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        self.retriever = retriever
        self.num_items, self.base, self.prompt, self.max_tokens = num_items, base, prompt, max_tokens
        self.train_samples, self.resample, self.augment = train_samples, resample, augment
        self.val_samples = val_samples
        self.tokens_per_batch, self.quantisation, self.gradient_checkpointing = (
            tokens_per_batch, quantisation, gradient_checkpointing,
        )  # fmt: skip
        self.lora = Lora(lora_rank, lora_alpha, lora_dropout, list(lora_targets))
        self.soft_token, self.soft = soft_token, list(soft)
        self.joint, self.joint_weight = joint, joint_weight
        self.uses_soft = "{soft}" in prompt.entry + prompt.question
        if augment and retriever.window > 1:
            raise InputError(
                "model.augment orders histories by rank too: set it to false where retriever.window is above 1"
            )
        if self.uses_soft != bool(self.soft or joint):
            raise InputError("{soft} in model.prompt and vectors in model.soft or model.joint: one needs the other")
        self.histories: RetrievalCallback | None = None
        self.strict_loading = False  # checkpoints hold what was trained, not the frozen language model

    # -- what it is made of -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Loads the language model and the vectors, once."""
        if hasattr(self, "language_model"):
            return
        data = self.data
        if self.histories is None:
            raise InputError("LlamaCTR needs a RetrievalCallback under trainer.callbacks: it makes the histories")
        made: LanguageModel = load(
            resolve(self.base, data.upstream), self.prompt, self.quantisation, self.lora, self.gradient_checkpointing,
            dtype=torch.bfloat16 if "bf16" in str(self.trainer.precision) else torch.float32, device=data.place()[0],
        )  # fmt: skip
        self.language_model, self.answer_states = made.decoder, made.states
        self.register_buffer("answers", made.answers, persistent=False)
        self.register_buffer("answer_bias", made.bias, persistent=False)
        seen = sliding_window(made.decoder)
        if self.retriever.window > 1 and seen is not None and seen < self.max_tokens:
            raise InputError(
                f"model.base {self.base}: some layers see {seen} tokens, which prompts that share a sequence do not"
                f" keep to: set model.max_tokens to {seen} or retriever.window to 1"
            )
        self.tokenizer = made.tokenizer
        self.prompts = Prompts(data.dataset, self.prompt, data.label_above, self.soft_token if self.uses_soft else "")
        self.tokens = prompt_tokens(made.tokenizer, self.prompts, self.max_tokens)
        if self.joint is not None:
            self.joint.read(data)
        if self.uses_soft:
            spaces = [run_vectors(data.run(name), data.num_items) for name in self.soft]
            joined = np.concatenate(
                [np.zeros((self.num_items + 1, 0), np.float32), *map(standardised, spaces)], 1, dtype=np.float32
            )
            self.register_buffer("soft_vectors", torch.from_numpy(joined), persistent=False)
            width = joined.shape[1] + (self.joint.collaborative_dim if self.joint else 0)
            size = made.answers.shape[1]
            self.soft_map = nn.Sequential(nn.Linear(width, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
            # As long as a word's vector at the start, so that the frozen layers meet what they know.
            words = self.word_embedding.weight.float()
            self.soft_scale = nn.Parameter(words.norm(dim=1).mean().detach() / math.sqrt(size))

    @property
    def word_embedding(self) -> Any:
        """The language model's input matrix."""
        return self.language_model.get_input_embeddings()  # type: ignore[operator]

    # -- samples ------------------------------------------------------------------------------------------------------

    def train_rows(self, data: RecDataModule, epoch: int) -> np.ndarray:
        """(S,) samples of an epoch: the same ones, or the next of one long shuffle (`resample`).

        Those that may share a sequence stay together.
        """
        rows = sample_rows(data.dataset, TRAIN)
        group = self.retriever.groups(data, rows)
        place = np.argsort(np.random.default_rng(data.seed).permutation(int(group.max(initial=-1)) + 1))
        order = np.argsort(place[group], kind="stable")
        count = min(self.train_samples, len(rows))
        begin = epoch * count if self.resample else 0
        chosen: np.ndarray = rows[order[(begin + np.arange(count)) % len(rows)]]
        return chosen

    def aligned_vectors(self) -> Tensor | None:
        """(N + 1, D) of the projector that is trained here."""
        return None if self.joint is None else self.joint()

    def prompt_texts(self, data: RecDataModule, rows: np.ndarray, history: np.ndarray) -> list[str]:
        """Prompts as text."""
        return list(self.prompts.texts(rows, history))

    def _prompt_loader(
        self, data: RecDataModule, rows: np.ndarray, history: np.ndarray, tokens_per_batch: int, shuffle: bool
    ) -> PromptLoader:
        device, rank, world_size = data.place()
        label = data.dataset.column(RATING)[rows] > data.label_above
        return PromptLoader(
            self.tokens, rows, history, label, share=self.retriever.window > 1, tokens_per_batch=tokens_per_batch,
            device=device, shuffle=shuffle, seed=data.seed, rank=rank, world_size=world_size,
        )  # fmt: skip

    def train_loader(self, data: RecDataModule) -> PromptLoader:
        """Prompts of the epoch's samples, each twice where training is mixed."""
        assert self.histories is not None
        if self.resample and self.histories.every_n_epochs != 1:
            raise InputError("model.resample draws samples each epoch: set RetrievalCallback.every_n_epochs to 1")
        rows, chosen = self.histories.for_training(self, data)
        arrange = self.retriever.arrange
        history = arrange(chosen)
        if self.augment:
            other = arrange(chosen, "rank" if self.retriever.order == "time" else "time")
            if not np.array_equal(history, other):  # the latest ratings have one order
                rows, history = np.concatenate([rows, rows]), np.concatenate([history, other])
        return self._prompt_loader(data, rows, history, self.tokens_per_batch, shuffle=True)

    def eval_loader(self, data: RecDataModule, split: int) -> PromptLoader:
        """Prompts of all samples of the part, or of some for validation."""
        assert self.histories is not None
        rows = sample_rows(data.dataset, split)
        if split == VAL and self.val_samples is not None and self.val_samples < len(rows):
            rows = rows[np.linspace(0, len(rows) - 1, self.val_samples).round().astype(np.int64)]
        history = self.histories.for_evaluation(self, data, rows)
        return self._prompt_loader(data, rows, history, 4 * self.tokens_per_batch, shuffle=False)

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """What the prompts were."""
        assert self.histories is not None
        own = {
            "val_samples": self.val_samples,
            "channels": self.retriever.channels,
            "k": self.retriever.k,
            "train_samples": self.train_samples,
        }
        return {**super().protocol(data), **own, "retrieval": self.histories.metrics}

    # -- the score ----------------------------------------------------------------------------------------------------

    def logits(self, batch: PromptBatch) -> Tensor:
        """(S,) log odds of Yes against No, float32."""
        return self._logits(batch, self.aligned_vectors() if self.uses_soft else None)

    def _logits(self, batch: PromptBatch, aligned: Tensor | None) -> Tensor:
        embedded = self.word_embedding(batch.input_ids)  # (B, T, H)
        if self.uses_soft:
            vectors = self.soft_vectors if aligned is None else torch.cat([self.soft_vectors, aligned], 1)
            soft = self.soft_map(vectors)
            soft = F.normalize(soft.float(), dim=-1) * self.soft_scale * math.sqrt(soft.shape[-1])
            soft = soft.to(embedded.dtype)
            is_soft = (batch.soft_item > 0)[..., None]
            embedded = torch.where(is_soft, F.embedding(batch.soft_item, soft), embedded)
        places = batch.sequence, batch.last
        states = self.answer_states(
            places, inputs_embeds=embedded, position_ids=batch.position, attention_mask=batch.mask()
        )
        answer = states.float()  # (S, H)
        with torch.autocast(answer.device.type, enabled=False):
            both = answer @ self.answers.T + self.answer_bias
        odds: Tensor = both[:, 0] - both[:, 1]
        return odds

    def on_fit_start(self) -> None:
        """Refuses to train where there is nothing to train, or to learn."""
        super().on_fit_start()
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise InputError("model.lora_rank is 0 and nothing else is trained: set trainer.max_epochs to 0")

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:  # type: ignore[override]
        """Cross-entropy of the answer, and InfoNCE where a projector is trained along.

        A batch holds so many positions, hence more short prompts than long ones, and each batch counts as much: samples
        of users with few ratings count less. (To count all alike was tried and lowered AUC, see docs/results.md.)
        """
        aligned = self.aligned_vectors()
        logits = self._logits(batch, aligned if self.uses_soft else None)
        loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.label))
        if self.joint is not None and aligned is not None:
            both = self.joint.both
            alignment = self.joint.loss(aligned[both], both, both)
            self.log("train/info_nce", alignment, batch_size=len(batch.label))
            loss = loss + self.joint_weight * alignment
        return loss

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What was trained, and what a joint projector reads; the frozen language model stays where it came from."""
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if "language_model." not in name or "lora_" in name}

    def save(self, run: Path) -> None:
        """Writes prompts of test samples, and adapter/: LoRA in peft's format, for any program that loads the base."""
        from safetensors.torch import save_file

        assert self.histories is not None
        self.histories.keep_test_prompts(run, self, self.data)
        prefix = f"base_model.model.{self.language_model.base_model_prefix}."
        weights = {
            prefix + name.replace(".default", ""): parameter.detach().cpu().contiguous()
            for name, parameter in self.language_model.named_parameters()
            if "lora_" in name
        }
        if not weights:
            return
        folder = run / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / "adapter_model.safetensors") as path:
            save_file(weights, path)
        base = resolve(self.base, self.data.upstream)
        self.lora.config(task_type="CAUSAL_LM", base_model_name_or_path=base).save_pretrained(str(folder))
