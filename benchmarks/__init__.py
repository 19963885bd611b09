"""What is measured, as ratios; no test."""
