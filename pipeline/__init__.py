"""Re-run, compare and extend the DeepLab line of semantic segmentation."""
