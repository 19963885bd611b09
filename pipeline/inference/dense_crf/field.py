"""The dense CRF of an image: by the native code, by numpy, or by the exact kernels in PyTorch."""

import functools
import sys
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.inference.dense_crf.portable import PortableField
from pipeline.inference.dense_crf.settings import (
    DenseCrfSettings,
    check_finite,
    check_sigmas,
    checked_image,
    checked_maps,
)

try:
    from pipeline.inference.dense_crf import _native
except ImportError:
    _native = None  # type: ignore[assignment]

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
Backend = Literal["native", "portable"]


class Field(Protocol):
    """What a backend offers: inference with any weights, for the image it was made for."""

    def labels(self, maps: Maps, settings: DenseCrfSettings) -> npt.NDArray[np.uint8]:
        """H x W class numbers."""

    def probabilities(self, maps: Maps, settings: DenseCrfSettings) -> Maps:
        """C x H x W beliefs."""


class NativeField:
    """The compiled code. Python's lock is released, so threads run side by side."""

    def __init__(
        self, image: Image, settings: DenseCrfSettings, instruction_set: str | None = None
    ) -> None:
        height, width = image.shape[:2]
        self._field = _native.prepare(
            image,
            height,
            width,
            settings.sigma_alpha,
            settings.sigma_beta,
            settings.sigma_gamma,
            settings.normalisation == "symmetric",
            2 if settings.mode == "fast" else 1,
            instruction_set or _native.instruction_sets()[0],
        )

    def labels(self, maps: Maps, settings: DenseCrfSettings) -> npt.NDArray[np.uint8]:
        """H x W class numbers."""
        out = np.empty(maps.shape[1:], np.uint8)
        _native.infer_labels(self._field, maps, len(maps), *_weights(settings), out)
        return out

    def probabilities(self, maps: Maps, settings: DenseCrfSettings) -> Maps:
        """C x H x W beliefs."""
        out = np.empty_like(maps)
        _native.infer_probabilities(self._field, maps, len(maps), *_weights(settings), out)
        return out


def _weights(settings: DenseCrfSettings) -> tuple[float, float, int, float]:
    return settings.w1, settings.w2, int(settings.iterations), settings.leave_out


def native_available() -> bool:
    """Whether the native code was compiled when the package was installed."""
    return _native is not None


@functools.cache
def default_backend() -> Backend:
    """The native code, or numpy with one line on stderr that says so."""
    if native_available():
        return "native"
    print(
        "warning: the dense CRF runs in numpy, ten times slower, for its native code is not "
        "compiled; install the project again with a C++ compiler at hand",
        file=sys.stderr,
        flush=True,
    )
    return "portable"


class DenseCrf:
    """The fully connected CRF of one image; settings that differ in weights share its filters.

    Memory of the native code: a photograph of 4000 x 3000 pixels whose maps leave 3 classes in play
    takes 1.1 GB beside its maps (0.6 GB in the mode fast), and 0.13 GB for each further class; one
    of pure noise 3.2 GB.

    Args:
        image: H x W x 3, RGB.
        settings: widths, normalisation and mode hold for good, the rest can be given anew.
        backend: of the modes lattice and fast; None: the fastest that is there.

    Raises:
        UserError: a sigma is too narrow for the filter, or the backend is not there.
        ValueError: the image is none.
    """

    def __init__(
        self, image: Image, settings: DenseCrfSettings, backend: Backend | None = None
    ) -> None:
        image = checked_image(image)
        self.height, self.width = image.shape[:2]
        self.settings = settings
        self._field: Field
        if settings.mode == "exact":
            from pipeline.inference.dense_crf.tiled import TiledField

            self._field = TiledField(image, settings)
            return
        check_sigmas(settings, self.height, self.width)
        backend = backend or default_backend()
        if backend == "native" and not native_available():
            raise UserError(
                "the dense CRF's native code is not compiled; install the project again with a "
                "C++ compiler at hand"
            )
        self._field = (
            NativeField(image, settings) if backend == "native" else PortableField(image, settings)
        )

    def labels(
        self, probabilities: Maps, settings: DenseCrfSettings | None = None
    ) -> npt.NDArray[np.uint8]:
        """The likeliest labels after mean-field inference.

        Args:
            probabilities: C x H x W, the network's softmax.
            settings: other weights or iterations; None: those it was made with.

        Returns:
            H x W, class numbers.

        Raises:
            UserError: a probability is not finite, or the image is too rich for the lattice.
            ValueError: shapes or types do not fit, or the settings need other filters.
        """
        maps, settings = self._checked(probabilities, settings)
        try:
            return self._field.labels(maps, settings)
        except (FloatingPointError, OverflowError) as error:
            raise self._explained(error, maps) from None

    def probabilities(self, probabilities: Maps, settings: DenseCrfSettings | None = None) -> Maps:
        """The beliefs after mean-field inference, C x H x W; otherwise as `labels`."""
        maps, settings = self._checked(probabilities, settings)
        try:
            return self._field.probabilities(maps, settings)
        except (FloatingPointError, OverflowError) as error:
            raise self._explained(error, maps) from None

    def _checked(
        self, probabilities: Maps, settings: DenseCrfSettings | None
    ) -> tuple[Maps, DenseCrfSettings]:
        if settings is None:
            settings = self.settings
        elif not settings.shares_filters(self.settings):
            raise ValueError(f"{settings} needs other filters than {self.settings}")
        return checked_maps(probabilities, self.height, self.width), settings

    def _explained(self, error: Exception, maps: Maps) -> Exception:
        if isinstance(error, FloatingPointError):
            check_finite(maps)
        return UserError(
            f"crf.sigma_alpha={self.settings.sigma_alpha}, crf.sigma_beta="
            f"{self.settings.sigma_beta}: {error}; take wider ones"
        )


def refine(
    probabilities: Maps, image: Image, settings: DenseCrfSettings, backend: Backend | None = None
) -> Maps:
    """The beliefs after mean-field inference in the fully connected CRF.

    The energy is -log p for each pixel, plus for each pair of pixels of different labels
    w1 exp(-|dp|^2 / 2 sigma_alpha^2 - |dI|^2 / 2 sigma_beta^2) + w2 exp(-|dp|^2 / 2 sigma_gamma^2)
    (v1, equation 3), the kernels normalised as the settings say.

    Args:
        probabilities: C x H x W, the network's softmax.
        image: H x W x 3, RGB.
        settings: weights, widths, iterations, normalisation and mode.
        backend: of the modes lattice and fast; None: the fastest that is there.

    Returns:
        C x H x W, float32; classes that took no part (`leave_out`) have 0.

    Raises:
        UserError: a probability is not finite, or a sigma is too narrow for the filter.
        ValueError: shapes or types do not fit together.
    """
    return DenseCrf(image, settings, backend).probabilities(probabilities)


def refine_labels(
    probabilities: Maps, image: Image, settings: DenseCrfSettings, backend: Backend | None = None
) -> npt.NDArray[np.uint8]:
    """The likeliest labels, H x W class numbers; otherwise as `refine`."""
    return DenseCrf(image, settings, backend).labels(probabilities)
