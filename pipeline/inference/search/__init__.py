"""The search of the CRF's settings on images held apart, and what it leaves behind.

v1 (arXiv 1412.7062), section 5; v2 (arXiv 1606.00915), section 4. Importing this package loads
neither torch nor matplotlib: a stage that does not search takes no time.
"""

from pipeline.inference.search.outcome import crf_settings, held_apart

__all__ = ["crf_settings", "held_apart"]
