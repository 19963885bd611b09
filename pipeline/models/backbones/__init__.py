"""Feature extractors whose atrous rates are decided when they are built."""
