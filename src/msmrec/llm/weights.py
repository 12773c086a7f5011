"""Weights of causal language models, from a folder or the model hub, whole or quantised."""

import logging
from typing import Any, Literal

import torch

from msmrec.artifacts import InputError, one_line

Quantisation = Literal["none", "8bit", "4bit"]


def load_causal_lm(
    base: str, quantisation: Quantisation, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> tuple[Any, Any]:
    """Tokenizer and model.

    Args:
        base: folder in the Hugging Face format, or a name on the hub.
        quantisation: of the linear layers, by bitsandbytes.
        dtype: of what is not quantised.
        device: where quantised weights are made and used; left to itself bitsandbytes takes a GPU that is there.

    Raises:
        InputError: the weights are not there or may not be had, or bitsandbytes is missing.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar for each load says nothing that the run's own does not
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # 4-bit kernels that nobody asked for
    # On a GPU it says of every 8-bit layer in every step that inputs are cast to float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    options: dict[str, Any] = {"dtype": dtype}
    if quantisation != "none":
        try:
            import bitsandbytes  # noqa: F401
        except ImportError:
            raise InputError(
                f"quantisation {quantisation} needs bitsandbytes: pip install 'msmrec[ctr]', or set it to none"
            ) from None
        options["quantization_config"] = (
            BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
            if quantisation == "8bit"
            else BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        )
        options["device_map"] = {"": str(device)}
    try:
        return AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base, **options)
    except (OSError, ValueError) as error:
        reason = one_line(error)[:160]
        raise InputError(
            f"language model {base} could not be loaded ({reason}); name a folder with its files, or, for a gated one,"
            " accept its licence on the hub and set HF_TOKEN"
        ) from None
