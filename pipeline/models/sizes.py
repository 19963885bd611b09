"""Sides of images: those on which the grids of different output strides coincide."""


def aligned_side(side: int, output_stride: int) -> int:
    """The next k * output_stride + 1 that is not below `side`."""
    return -(-(side - 1) // output_stride) * output_stride + 1


def scaled_side(side: int, scale: float) -> int:
    """The side of a scaled image, at least 1: int((side - 1) * scale + 1)."""
    return int((side - 1) * scale + 1)
