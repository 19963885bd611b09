"""Stage `report`: compare the variants of params.yaml on one page, report/index.html."""

from pipeline.composition import load_config
from pipeline.entry import run
from pipeline.paths import PREPARED, PROJECT, REPORT, RUNS


def main() -> None:
    """Write report/index.html, report.md, curves.csv and figures/ from the runs' folders."""
    from pipeline.reporting.page import git_commit, write_report
    from pipeline.tracking.publish import publish

    variants = list(load_config([]).variants)
    page = write_report(variants, RUNS, REPORT, PREPARED, git_commit(PROJECT))
    print(f"{len(variants)} variants reported: {page}", flush=True)
    for place in publish(page, [RUNS / name for name in variants]):
        print(f"dashboard: {place}")


if __name__ == "__main__":
    run(main)
