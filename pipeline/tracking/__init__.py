"""MLflow: naming, one row a variant, and a server that may be away."""
