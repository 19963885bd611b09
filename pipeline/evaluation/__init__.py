"""The confusion matrix and the figures that come from it."""
