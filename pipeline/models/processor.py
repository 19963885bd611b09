"""What this processor computes slowly, or hardly."""

import torch

#: An x86 processor with AVX2 and no AVX-512: oneDNN has fewer kernels for it.
WITHOUT_AVX_512 = torch.backends.cpu.get_cpu_capability() == "AVX2"


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether it is a processor that oneDNN has no kernels in bfloat16 for.

    There bfloat16 is computed number by number, and takes many times as long as float32.
    """
    has = torch.ops.mkldnn._is_mkldnn_bf16_supported  # torch's own compiler asks the same
    return device.type == "cpu" and not (torch.backends.mkldnn.is_available() and has())
