"""Stage `compose`: write one resolved, checked configuration per variant of params.yaml."""

from pipeline.composition import compose_variants
from pipeline.entry import run
from pipeline.paths import BUILD


def main() -> None:
    """Write build/configs/{train,evaluate,trainer}/<variant>.yaml."""
    names = compose_variants(BUILD)
    print(f"{len(names)} variants composed: {', '.join(names)}")


if __name__ == "__main__":
    run(main)
