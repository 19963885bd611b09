"""The space of a search, in Hydra's own words: choice(), range() and interval()."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException

from pipeline.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True)
class Space:
    """What is searched, and what stays.

    Attributes:
        searched: overrides whose value is a choice(), range() or interval().
        fixed: the other words, as they were written.
    """

    searched: tuple[Override, ...]
    fixed: tuple[str, ...]

    def suggest(self, trial: "Trial") -> list[str]:
        """A point of the space, as overrides."""
        return [f"{over.key_or_group}={_suggest(trial, over)}" for over in self.searched]


def read_space(words: list[str]) -> Space:
    """Take the words of a command line apart.

    `model.output_stride=choice(8,16)` or `=8,16` is one of these, and so is `range(1,10)`;
    `interval(0.5,1.0)` is any float between, `tag(log,interval(1e-3,1e-1))` on a logarithmic scale;
    `int(interval(1,8))` is a whole number.

    Raises:
        UserError: a word that Hydra cannot read, or nothing to search.
    """
    parser = OverridesParser.create()
    searched, fixed = [], []
    for word in words:
        try:
            override = parser.parse_override(word)
        except HydraException as error:
            raise UserError(f"{word}: {str(error).splitlines()[0]}") from error
        if override.is_sweep_override():
            searched.append(override)
        else:
            fixed.append(word)
    if not searched:
        raise UserError(
            "nothing to search; name at least one key, such as "
            "'train.learning_rate=tag(log,interval(1e-3,1e-1))' or model.output_stride=8,16"
        )
    return Space(tuple(searched), tuple(fixed))


def _suggest(trial: "Trial", override: Override) -> Any:
    name, sweep = override.key_or_group, override.value()
    if not isinstance(sweep, IntervalSweep):
        # As text: a list, a preset and a number are all written into an override.
        return trial.suggest_categorical(name, list(override.sweep_string_iterator()))
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    if low is None or high is None:
        raise UserError(f"{name}: an interval needs a start and an end")
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    # Four digits: what is tried can be written down.
    return float(f"{trial.suggest_float(name, low, high, log=log):.4g}")
