"""A trained network on the user's own images: predicted here, exported, or served by MLflow."""
