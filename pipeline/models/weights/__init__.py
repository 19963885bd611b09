"""Trained weights: where they come from, whose layout they have, and how they are loaded."""

from pipeline.models.weights.load import load_weights
from pipeline.models.weights.report import WeightReport
from pipeline.models.weights.sources import (
    WeightSet,
    describe,
    find_weights,
    known_weights,
    weight_sets,
)

__all__ = [
    "WeightReport",
    "WeightSet",
    "describe",
    "find_weights",
    "known_weights",
    "load_weights",
    "weight_sets",
]
