"""Multi-scale and flipped whole-image prediction, and the dense CRF."""
