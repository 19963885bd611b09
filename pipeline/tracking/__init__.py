"""MLflow: naming, one row a variant, its dashboard, and a server that may be away."""

import os

# MLflow reports what is done with it to its makers, unless told not to before it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
