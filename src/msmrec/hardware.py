"""What this machine can do."""


def has_fast_bf16(cuda: bool) -> bool:
    """Whether bf16 matrix products have hardware, the GPU's or the processor's.

    Without it they are several times slower than float32.
    """
    import torch

    if cuda:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported()) or bool(torch.cpu._is_avx512_bf16_supported())
