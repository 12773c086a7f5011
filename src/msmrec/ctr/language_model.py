"""The language model under the CTR head: loading, LoRA, quantisation, and what its tokenizer must be able to do."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from msmrec.artifacts import InputError
from msmrec.llm.chat_template import in_template
from msmrec.llm.client import Message
from msmrec.llm.weights import Quantisation, load_causal_lm
from msmrec.models.layers import causal_attention
from msmrec.retrieval.prompts import Prompts, PromptTemplate, PromptTokens

_MARK = "\u241f"  # stands for the prompt when the chat template is taken apart


class LanguageModel(NamedTuple):
    """A decoder without its head, and the two rows of the head that the score needs."""

    decoder: nn.Module  # transformers' base model, LoRA inside
    states: "AnswerStates"  # what computes it
    answers: Tensor  # (2, H) float32 rows of the output matrix: yes, no
    bias: Tensor  # (2,) float32, of the same rows; 0 where the matrix has none
    tokenizer: Any


class Lora(NamedTuple):
    """Which adapters the language model gets; see LlamaCTR."""

    rank: int
    alpha: int
    dropout: float
    targets: list[str]

    def config(self, **more: Any) -> Any:
        """As peft has it.

        Raises:
            InputError: peft is missing.
        """
        try:
            from peft import LoraConfig
        except ImportError:
            raise InputError("model.lora_rank above 0 needs peft: pip install 'msmrec[ctr]'") from None
        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self.targets, **more
        )


def load(
    base: str,
    template: PromptTemplate,
    quantisation: Quantisation,
    lora: Lora,
    gradient_checkpointing: bool,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
) -> LanguageModel:
    """Loads a causal language model from a folder or the model hub and puts LoRA on it.

    Args:
        base: folder in the Hugging Face format, or a name on the hub.
        quantisation: of the frozen weights, by bitsandbytes.
        lora: rank 0 trains nothing of the language model.
        dtype: of what is not quantised.
        device: where it will run; Lightning moves it there.

    Raises:
        InputError: the weights are not there or may not be had, bitsandbytes or peft is missing, an answer is more
            than one token, no layer has a name of `lora.targets`, or the output is not a matrix and a bias alone.
    """
    tokenizer, whole = load_causal_lm(base, quantisation, dtype, device)
    whole.config.use_cache = False
    for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(whole.config, key, None) not in (None, 1, 1.0):
            raise InputError(f"model.base {base}: its logits are bent by {key}, which the score here does not do")
    rows = [answer_token(tokenizer, answer) for answer in (template.yes, template.no)]
    output = whole.get_output_embeddings()
    answers = output.weight[rows].detach().float().clone()
    bias = torch.zeros(2) if output.bias is None else output.bias[rows].detach().float().clone()
    decoder: Any = whole.base_model
    decoder.requires_grad_(False)
    cpu_attention(decoder)
    _float_products(decoder)
    if gradient_checkpointing:
        _checkpoint_activations(decoder, reentrant=quantisation == "8bit")
    if lora.rank:
        _add_lora(decoder, lora, base)
    return LanguageModel(decoder, AnswerStates(decoder), answers, bias, tokenizer)


def _add_lora(decoder: Any, lora: Lora, base: str) -> None:
    """Puts adapters on the layers that `lora` names, in float32.

    Raises:
        InputError: peft is missing, or the decoder of `base` has no such layer.
    """
    config = lora.config()
    from peft import inject_adapter_in_model

    try:
        inject_adapter_in_model(config, decoder)
    except ValueError as error:
        names = sorted({name.split(".")[-1] for name, layer in decoder.named_modules() if _is_linear(layer)})
        raise InputError(
            f"model.lora_targets {', '.join(lora.targets)}: {base} has {', '.join(names)} ({error})"
        ) from None
    for name, parameter in decoder.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()  # trained in float32 under autocast
    for layer in decoder.modules():
        if hasattr(layer, "lora_A"):
            layer.cast_input_dtype_enabled = False  # to float32, which autocast would take back


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"  # GPT-2's


def _checkpoint_activations(decoder: Any, reentrant: bool) -> None:
    """Recomputes activations in the backward pass; transformers 4 has the method under its old name only.

    Args:
        reentrant: bitsandbytes' 8-bit product keeps its input where only the older, reentrant way leaves it out.
    """
    options = {"use_reentrant": reentrant}
    if hasattr(decoder, "activation_checkpointing_enable"):
        decoder.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        decoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


class AnswerStates:
    """The last states of a decoder where answers begin, without the work for the other places of its last layer.

    Only keys and values of those are needed. Hooks give the layer's output matrix, its feed-forward part and the last
    norm the rows that are asked for, and zeros stand in the others' place. This serves every decoder that is built as
    Llama is (Mistral, Qwen, Gemma, ...); of others everything is computed. Of two layers it saves a quarter of the
    time, of 32 a fiftieth. The decoder is not to be called but through this. (tests/ctr/test_language_model.py holds
    thirteen architectures to the whole model's logits.)
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.places: tuple[Tensor, Tensor] | None = None
        try:
            last = decoder.layers[-1]
            inner, norm = (last.self_attn.o_proj, last.mlp), decoder.norm
        except AttributeError:
            self.only = False
            return
        self.only = True
        last.self_attn.answer_states = self
        for part in inner:
            part.register_forward_pre_hook(self._rows)
            part.register_forward_hook(self._whole)
        norm.register_forward_pre_hook(self._rows)

    def __call__(self, places: tuple[Tensor, Tensor], **inputs: Any) -> Tensor:
        """(S, H) states at (S,) rows and (S,) columns.

        Args:
            inputs: of the decoder, (B, T). Without an attention mask rows are 0 to S - 1: each is one prompt.
        """
        self.places = places
        states: Tensor = self.decoder(**inputs, use_cache=False).last_hidden_state
        return states[0] if self.only else states[places]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(B, T, heads, D) causal attention at the one place of each row that is asked for, zeros elsewhere."""
        assert self.places is not None
        row, column = self.places
        unseen = torch.arange(key.shape[2], device=key.device) > column[:, None]  # (B, T)
        scores = (query[row, :, column][:, :, None] @ key.mT).float() * scale  # (B, heads, 1, T)
        shares = scores.masked_fill(unseen[:, None, None], -torch.inf).softmax(-1)
        mixed = (shares.to(value.dtype) @ value)[:, :, 0]
        states = torch.zeros_like(query.transpose(1, 2), dtype=mixed.dtype)
        states[row, column] = mixed
        return states

    def _rows(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        self.shape = inputs[0].shape[:2]
        return (inputs[0][self.places][None],)  # (1, S, H)

    def _whole(self, _: nn.Module, __: Any, rows: Tensor) -> Tensor:
        whole = rows.new_zeros(*self.shape, rows.shape[-1])
        whole[self.places] = rows[0]
        return whole


def cpu_attention(decoder: Any) -> None:
    """Lets a decoder compute bfloat16 attention on a CPU in another way than by transformers' `sdpa`, as elsewhere.

    There the backward pass of PyTorch's kernel takes five times as long in bfloat16 as in float32. So prompts that
    share a sequence are attended in float32; single ones by `causal_attention`, faster still, but it holds all scores.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    # Eager is what decoders have that bend scores before the softmax; some old ones choose for themselves.
    if decoder.config._attn_implementation != "sdpa" or not getattr(decoder, "_supports_attention_backend", False):
        return
    AttentionInterface.register("sdpa_but_on_cpu", _attention)
    AttentionMaskInterface.register("sdpa_but_on_cpu", sdpa_mask)  # or a sliding window would get no mask
    decoder.config._attn_implementation = "sdpa_but_on_cpu"


def sliding_window(decoder: Any) -> int | None:
    """How many tokens some layer of the decoder sees at most; None: all."""
    config = decoder.config
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    return window if "sliding_attention" in kinds and getattr(config, "use_sliding_window", True) else None


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """(B, T, heads, D) states from (B, heads, T, D) each; several query heads may share a key's."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    alone = attention_mask is None and not options.get("dropout")
    at_answers: AnswerStates | None = getattr(module, "answer_states", None)
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if alone and (at_answers is not None or on_cpu):
        shared_by = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(shared_by, 1) for each in (key, value))
    if alone and at_answers is not None:
        states = at_answers.attend(query, key, value, module.scaling)
    elif not on_cpu:
        states, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    elif alone:
        states = causal_attention(query, key, value, options.get("scaling")).transpose(1, 2).contiguous()
    else:
        dtype, query, key, value = query.dtype, query.float(), key.float(), value.float()
        with torch.autocast("cpu", enabled=False):
            states, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        states = states.to(dtype)
    return states, None


def _float_products(decoder: Any) -> None:
    """Multiplies quantised weights in the type of the activations, as bitsandbytes does on a CPU in training mode.

    In the other it rounds the activations too at 8 bits, which on a CPU takes longer than the products, and at 4
    bits it repacks the weights, which fails where a layer's width is no multiple of 64.
    """
    for layer in decoder.modules():
        if type(layer).__name__ in ("Linear8bitLt", "Linear4bit") and layer.weight.device.type == "cpu":
            layer.register_forward_pre_hook(_in_training)


def _in_training(layer: nn.Module, _: Any) -> None:
    layer.train()


def answer_token(tokenizer: Any, answer: str) -> int:
    """The one token of an answer."""
    ids = tokenizer.encode(answer, add_special_tokens=False)
    if len(ids) != 1:
        raise InputError(
            f"the tokenizer makes {len(ids)} tokens of the answer {answer!r}; name one-token answers in prompt.yes and"
            " prompt.no"
        )
    return int(ids[0])


def prompt_tokens(tokenizer: Any, prompts: Prompts, max_tokens: int) -> PromptTokens:
    """Tokenises the pieces of prompts, in the model's chat template where it has one."""
    system = prompts.template.system
    if getattr(tokenizer, "chat_template", None):
        turns: list[Message] = [{"role": "system", "content": system}, {"role": "user", "content": _MARK}]
        whole = in_template(tokenizer, turns)
    else:
        whole = f"{tokenizer.bos_token or ''}{system}\n{_MARK}"
    before, _, after = whole.partition(_MARK)
    soft = prompts.soft_token
    soft_id = None
    if soft:
        soft_id = tokenizer.convert_tokens_to_ids(soft)
        if soft_id is None or soft_id == tokenizer.unk_token_id:
            raise InputError(f"the tokenizer has no token {soft!r}; name a reserved one in model.soft_token")

    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]

    ahead, behind = encode([before, after])
    return PromptTokens(prompts, encode, ahead, behind, soft_id, max_tokens)


def resolve(base: str, upstream: dict[str, Path]) -> str:
    """The folder of a language model that an upstream run left, or `base` itself."""
    return str(upstream[base] / "model") if base in upstream else base
