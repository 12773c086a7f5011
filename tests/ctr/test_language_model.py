"""The score against transformers' own, over the architectures that people bring."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.llm.tiny_chat import write_chat_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)  # fmt: skip

from msmrec.artifacts import InputError
from msmrec.ctr.language_model import Lora, answer_token, load, prompt_tokens, sliding_window
from msmrec.retrieval.prompts import MOVIE_TEMPLATE

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SIZES, "num_key_value_heads": 2}
CONFIGS: dict[str, Callable[[int], Any]] = {
    "llama": lambda n: LlamaConfig(vocab_size=n, **GROUPED),
    "mistral": lambda n: MistralConfig(vocab_size=n, sliding_window=8, **GROUPED),
    "qwen2": lambda n: Qwen2Config(vocab_size=n, **GROUPED),
    "qwen3": lambda n: Qwen3Config(vocab_size=n, head_dim=8, **GROUPED),
    "gemma": lambda n: GemmaConfig(vocab_size=n, head_dim=8, **GROUPED),
    "gemma2": lambda n: Gemma2Config(
        vocab_size=n, head_dim=8, sliding_window=8, final_logit_softcapping=None, attn_logit_softcapping=1.0, **GROUPED
    ),
    "gemma3": lambda n: Gemma3TextConfig(vocab_size=n, head_dim=8, sliding_window=8, **GROUPED),
    "phi": lambda n: PhiConfig(vocab_size=n, **SIZES),
    "phi3": lambda n: Phi3Config(vocab_size=n, pad_token_id=0, **GROUPED),
    "gpt2": lambda n: GPT2Config(vocab_size=n, n_embd=32, n_layer=2, n_head=4),
    "gpt_neox": lambda n: GPTNeoXConfig(vocab_size=n, **SIZES),
    "opt": lambda n: OPTConfig(
        vocab_size=n, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
        pad_token_id=1,
    ),
    "falcon": lambda n: FalconConfig(vocab_size=n, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(write_chat_model(tmp_path_factory.mktemp("chat") / "base", ["Yes", "No"]))


def written(config: Any, tokenizer: Any, folder: Path) -> str:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)  # made as zeros
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def loaded(base: str, rank: int = 0, targets: tuple[str, ...] = ()) -> Any:
    made = load(base, MOVIE_TEMPLATE, "none", Lora(rank, 8, 0.0, list(targets)), False, torch.float32)
    made.decoder.eval()
    return made


@pytest.mark.parametrize("name", CONFIGS)
def test_the_score_is_the_whole_models(name: str, tokenizer: Any, tmp_path: Path) -> None:
    made = loaded(written(CONFIGS[name](len(tokenizer)), tokenizer, tmp_path))
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids, last = torch.randint(len(tokenizer), (3, 40)), torch.tensor([39, 20, 5])
    rows = [answer_token(tokenizer, answer) for answer in ("Yes", "No")]
    with torch.no_grad():
        wanted = whole(input_ids=ids).logits[torch.arange(3), last][:, rows]
        states = made.states(
            (torch.arange(3), last), inputs_embeds=made.decoder.get_input_embeddings()(ids), position_ids=None,
            attention_mask=None,
        )  # fmt: skip
        torch.testing.assert_close(states @ made.answers.T + made.bias, wanted, atol=1e-5, rtol=1e-4)
    assert sliding_window(made.decoder) == (8 if name in ("mistral", "gemma2", "gemma3") else None)


def test_a_template_without_a_system_role_has_its_words_in_the_first_turn(tokenizer: Any) -> None:
    prompts: Any = SimpleNamespace(
        template=replace(MOVIE_TEMPLATE, system="Judge."), soft_token="", heads=["A user."], entries=["It."],
        tails=["Why?"], codes=np.zeros(1, np.int64), values=[1.0],
    )  # fmt: skip
    refusing = copy.copy(tokenizer)
    refusing.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "[{{ m['content'] }}]{% endfor %}"
    )
    made = prompt_tokens(refusing, prompts, 400)
    assert refusing.decode(made.flat[: made.size[:3].sum()]) == "[Judge.\n\nA user.It.Why?]"


def test_bent_logits_and_unknown_lora_targets_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    soft = Gemma2Config(vocab_size=len(tokenizer), head_dim=8, **GROUPED)
    with pytest.raises(InputError, match="final_logit_softcapping"):
        loaded(written(soft, tokenizer, tmp_path / "soft"))
    base = written(CONFIGS["phi3"](len(tokenizer)), tokenizer, tmp_path / "phi3")
    with pytest.raises(InputError, match=r"model.lora_targets q_proj: .* has .*qkv_proj"):
        loaded(base, 2, ("q_proj",))
    made = loaded(base, 2, ("qkv_proj",))
    assert sum("lora_A" in name for name, _ in made.decoder.named_parameters()) == 2
