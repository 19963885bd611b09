"""What every network of the catalogue costs and sees, beside what the papers print."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from pipeline.config import ModelConfig
from pipeline.config.model import check_model
from pipeline.errors import UserError
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.models.sizes import aligned_side, scaled_side
from pipeline.networks.catalogue import PAPERS_SIZE, Row
from pipeline.networks.cost import count_multiply_adds, count_parameters, peak_memory
from pipeline.networks.field_of_view import Field, field_of_view
from pipeline.networks.receptive_field import receptive_field

#: The sides in pixels that can be asked for.
SMALLEST, LARGEST = 33, 16385
#: How far multiply-adds may be from the paper's and still be the same.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue, measured.

    Attributes:
        row: what was measured.
        params_m: millions of parameters.
        gmacs: billions of multiply-adds, over all scales and flips of the row.
        gmacs_in_tensorflow: the same with TensorFlow's padding, as the papers count.
        field_of_view: of the head (v2, Table 1); None where it means nothing.
        receptive_field: of a score; None where it could not be followed.
        peak_mib: of a forward pass, at the row's largest scale.
    """

    row: Row
    params_m: float
    gmacs: float
    gmacs_in_tensorflow: float
    field_of_view: Field | None
    receptive_field: Field | None
    peak_mib: float

    @property
    def off(self) -> float | None:
        """How much more multiply-adds than the paper's, both as TensorFlow counts; 0.01 is 1 %."""
        printed = self.row.multiply_adds
        return None if printed is None else self.gmacs_in_tensorflow / printed.value - 1

    def agrees(self) -> bool:
        """Whether all printed figures come out.

        Parameters to the digits printed, multiply-adds within `TOLERANCE`, the field of view
        exactly.
        """
        params, printed = self.row.params, self.row.field_of_view
        seen = self.field_of_view
        return (
            (params is None or round(self.params_m, params.digits) == params.value)
            and (self.off is None or abs(self.off) <= TOLERANCE)
            and (printed is None or (seen is not None and seen.pixels == printed.value))
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures, and the row's settings, as they go into JSON."""
        fields = {"field_of_view": self.field_of_view, "receptive_field": self.receptive_field}
        return asdict(self) | {
            **{name: None if field is None else field._asdict() for name, field in fields.items()},
            "off": self.off,
            "agrees": self.agrees(),
        }


def rows_at(rows: Iterable[Row], size: int, output_stride: int | None) -> list[Row]:
    """The rows at another size or output stride, without the multiply-adds that no paper has.

    Rows that become the same are one; networks that cannot be built at the output stride are left
    out.

    Args:
        rows: as they are in the papers.
        size: pixels a side.
        output_stride: of every network; None: each at its own.

    Raises:
        UserError: for a size that cannot be counted, or an output stride that no network has.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"--size={size}: must be {SMALLEST} to {LARGEST} pixels a side")
    found: dict[str, Row] = {}
    for row in rows:
        config = replace(row.config, output_stride=output_stride or row.config.output_stride)
        moved = config != row.config
        if moved and not _can_be_built(config):
            continue
        if moved or size != PAPERS_SIZE:
            row = replace(row, config=config, multiply_adds=None, difference="")
        key = repr((row.paper, row.table, row.label, config, row.scales, row.flip))
        # A row that stands there as it is printed has the paper's figures.
        if key not in found or not moved:
            found[key] = row
    if not found:
        raise UserError(f"--output-stride={output_stride}: no network can be built at it")
    return list(found.values())


def _can_be_built(config: ModelConfig) -> bool:
    try:
        check_model(config)
        _build(config, 1)
    except UserError:
        return False
    return True


def _build(config: ModelConfig, classes: int) -> SegmentationNetwork:
    """A network that has shapes and no values."""
    with torch.device("meta"):
        return build_model(config, classes).eval()


def measured(rows: Sequence[Row], size: int) -> Iterator[Entry]:
    """Each row with its figures; networks that several rows have are built and counted once.

    Args:
        rows: which networks, and how they are run.
        size: pixels a side of the image at scale 1.
    """
    networks: dict[str, _Network] = {}
    for row in rows:
        key = repr((row.config, row.classes))
        if key not in networks:
            networks[key] = _Network(row.config, row.classes)
        yield _entry(row, networks[key], size)


class _Network:
    """A network, and what was counted of it."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        model = _build(config, classes)
        self.params_m = count_parameters(model) / 1e6
        self.receptive_field = receptive_field(model.scores)
        self.multiply_adds = functools.cache(functools.partial(count_multiply_adds, model))
        self.peak_memory = functools.cache(functools.partial(peak_memory, model))


def _entry(row: Row, network: _Network, size: int) -> Entry:
    seen = sides(row, size)
    counts = [network.multiply_adds(side) for side in seen]
    ways_round = 2 if row.flip else 1
    return Entry(
        row=row,
        params_m=network.params_m,
        gmacs=ways_round * sum(count.direct for count in counts) / 1e9,
        gmacs_in_tensorflow=ways_round * sum(count.in_tensorflow for count in counts) / 1e9,
        field_of_view=field_of_view(row.config),
        receptive_field=network.receptive_field,
        peak_mib=network.peak_memory(max(seen)) / 2**20,
    )


def sides(row: Row, size: int) -> list[int]:
    """The sides at which the network sees an image of size x size pixels.

    A single scale is the size itself; several are scaled and padded as at test time.
    """
    if row.scales == (1.0,):
        return [size]
    stride = row.config.output_stride
    return [aligned_side(scaled_side(size, scale), stride) for scale in row.scales]
