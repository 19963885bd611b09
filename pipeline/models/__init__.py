"""Tensors to logits: backbones, ASPP, decoder, weights, cost."""
