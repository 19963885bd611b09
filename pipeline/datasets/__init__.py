"""Files to (image, label) tensors: manifests, verified fetch, formats, transforms."""
