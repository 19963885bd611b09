"""The Lightning task, its schedule, callbacks and resume."""
