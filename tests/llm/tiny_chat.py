"""A chat model of a few kilobytes that always says the same: a Llama whose layers add nothing.

Its next token depends on the last one alone: with embeddings e, the row of the output matrix for the token that follows
t is e_t. So the answer is written into the weights, and a real server can serve it.
"""

from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<|says|>{% endif %}"
DIM = 256


def write_chat_model(folder: Path, pieces: list[str]) -> Path:
    """A model that answers every prompt with `pieces`, each of them one token.

    Args:
        folder: where it is put, in the Hugging Face format.
        pieces: the answer, in parts that differ from each other.
    """
    assert len(set(pieces)) == len(pieces)
    letters = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|says|>"])
    tokenizer.add_tokens(pieces)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", clean_up_tokenization_spaces=False
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    end = fast.convert_tokens_to_ids("<|end|>")
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=DIM, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=16_384, tie_word_embeddings=False, eos_token_id=end, bos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        embedding = torch.randn(len(fast), DIM, generator=generator)
        model.model.embed_tokens.weight.copy_(embedding)
        model.lm_head.weight.zero_()
        chain = fast.convert_tokens_to_ids(["<|says|>", *pieces, "<|end|>"])
        for now, following in pairwise(chain):
            model.lm_head.weight[following] += embedding[now]
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = end
    model.save_pretrained(folder)
    return folder
