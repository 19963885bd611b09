"""What this processor computes slowly, or hardly."""

import torch
from torch import Tensor

from pipeline.errors import warn

#: An x86 processor with AVX2 and no AVX-512: oneDNN has fewer kernels for it.
WITHOUT_AVX_512 = torch.backends.cpu.get_cpu_capability() == "AVX2"


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether it is a processor that oneDNN has no kernels in bfloat16 for.

    There bfloat16 is computed number by number, and takes many times as long as float32.
    """
    has = torch.ops.mkldnn._is_mkldnn_bf16_supported  # torch's own compiler asks the same
    return device.type == "cpu" and not (torch.backends.mkldnn.is_available() and has())


def warn_without_bfloat16(setting: str, instead: str, device: torch.device) -> None:
    """Say of a setting in bfloat16 that it is slow, where it is.

    Args:
        setting: the key and its value.
        instead: the value in float32.
        device: on which it is to run.
    """
    if lacks_bfloat16(device):
        warn(
            f"{setting}: this processor has no bfloat16 arithmetic, and takes many times as long; "
            f"{instead} is fast here"
        )


def learns_without_avx_512(x: Tensor) -> bool:
    """Whether a layer of this input learns in float32 on a processor without AVX-512.

    Never while a network is compiled or exported: what follows may hang on the size of its maps.
    """
    return (
        WITHOUT_AVX_512
        and not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
