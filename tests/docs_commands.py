"""How the tests run each command of the documentation: as it stands, made smaller, or not at all.

Patterns match the whole command, one line of a block. The first that matches counts; a command that
none matches, and a pattern that matches none, fail a test.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class Rule:
    """What is done with some commands.

    Attributes:
        pattern: of the whole command.
        run: what runs in its place, with the pattern's groups; None: nothing, it is read only.
        why: it does not run as it stands.
        page: of which pages.
    """

    pattern: str
    run: str | None = r"\g<0>"
    why: str = ""
    page: str = "*"


def as_it_stands(*patterns: str) -> list[Rule]:
    """Commands that run as a reader types them."""
    return [Rule(pattern) for pattern in patterns]


def smaller(pattern: str, run: str, why: str, page: str = "*") -> Rule:
    """A command that runs in another form."""
    return Rule(pattern, run, why, page)


def not_run(pattern: str, why: str, page: str = "*") -> Rule:
    """A command that is only read: its modules, options, overrides and files are there."""
    return Rule(pattern, None, why, page)


ONE_STEP = "scale=small train.iterations=1"
#: The variants of params.yaml, and the stages that DVC makes of them.
RESOLVED = "python -m pipeline.compose && dvc stage list > stages.log"
SERVE = "{ %s > served.log 2>&1 & } && answers http://127.0.0.1:$PORT/%s"

RULES = [
    # make
    smaller(
        r"make repro",
        r"git checkout -q params.yaml && make repro",
        "each section of the page begins anew",
        "docs/results.md",
    ),
    *as_it_stands(r"make (repro|plan)"),
    smaller(r"nohup make sweep > sweep\.log &", "make -n sweep", "tests/test_sweep.py sweeps"),
    smaller(r"make (ui|setup|test|test-all|nightly)", r"make -n \1", "a server, an install, hours"),
    # DVC
    smaller(
        r"(cp conf/study/\S+ params\.yaml|python -m pipeline\.table .+) && dvc repro",
        rf"\1 && {RESOLVED}",
        "hours, and data that lie elsewhere",
    ),
    smaller(
        r"dvc repro",
        RESOLVED,
        "the table's hours; what goes before it has written params.yaml",
        "docs/tables.md",
    ),
    smaller(
        r"dvc repro",
        r"python -m pipeline.train hydra.run.dir=outputs/shared && curl -sf "
        r"$MLFLOW_TRACKING_URI/api/2.0/mlflow/experiments/get-by-name?experiment_name=shapes",
        "one training, whose row has to be on the server; all is up to date",
        "docs/shared.md",
    ),
    smaller(
        r"dvc remote add --default storage s3://BUCKET/dvc",
        r"dvc remote add --default storage $PWD/../storage",
        "a folder in place of a bucket",
    ),
    *as_it_stands(
        r"dvc repro( download| augment| compose)?",
        r"dvc (push|metrics show|metrics diff|plots show)",
    ),
    # git
    smaller(
        r"git pull",
        r"git clone -q $PWD/../origin.git ../there && cd ../there && git pull -q",
        "the other machine is another folder",
        "docs/shared.md",
    ),
    *as_it_stands(r"dvc pull", r"git checkout params\.yaml"),
    *as_it_stands(r"git add .*", r"git commit -m .*", r"git push"),
    not_run(r"git clone REPOSITORY .*", "the repository's address is the reader's"),
    # the program
    *as_it_stands(
        r"python -m pipeline\.plan( \S+)?",
        r"python -m pipeline\.sweep \w\S+",
        r"python -m pipeline\.predict .*",
        r"python -m pipeline\.export .*",
        r"python -m pipeline\.register( v3plus-resnet18-os16)?",
        r"python -m pipeline\.table( \w+)?",
        r"python -m pytest tests/models/backbones/test_backbones\.py -k plain",
        r"python -m pipeline\.train model=deeplab_v3plus model\.backbone=(?!resnet50|resnet101).*",
        r"python -m pipeline\.train( -m model\.backbone=resnet18,mobilenet_v2)? "
        r"model\.output_stride=\S+",
        r"python -m pipeline\.train hydra\.run\.dir=\S+",
    ),
    not_run(r"python -m pipeline\.sweep( --slots 2)?", "tests/test_sweep.py sweeps"),
    not_run(r"python -m pipeline\.sweep --devices 2", "two GPUs"),
    not_run(r"python -m pipeline\.submit .*", "a network of VOC's classes, and its test images"),
    not_run(r"python -m pipeline\.train .*model\.weights=imagenet", "downloads the weights"),
    smaller(
        r"python -m pipeline\.register v3-os8",
        r"python -m pipeline.register v3plus-resnet18-os16",
        "another variant's name",
    ),
    smaller(
        r"(python -m pipeline\.table all scale=small) --run", r"\1", "hours: all tables, trained"
    ),
    smaller(
        r"(python -m pipeline\.train experiment=\S+)", rf"\1 {ONE_STEP}", "days, and VOC with SBD"
    ),
    smaller(
        r"(python -m pipeline\.train -m experiment=\S+) seed=0,1,2",
        rf"\1 seed=1 {ONE_STEP}",
        "days, and VOC with SBD",
    ),
    smaller(
        r"(python -m pipeline\.networks --markdown)",
        r"\1 --paper v1 | grep '^| val' > rows.log && "
        'while read -r row; do grep -qF "$row" docs/networks.md; done < rows.log',
        "counts every network of the papers: a minute",
    ),
    smaller(
        r"(python -m pipeline\.networks)( --json)?",
        r"\1\2 --paper v1 --size 65",
        "counts every network of the papers: a minute",
    ),
    smaller(
        r"(python -m pipeline\.networks --paper) v3\+ --size 769 (.*)",
        r"\1 v1 --size 65 \2",
        "counts every network of v3+: half a minute",
    ),
    smaller(
        r"(python -m pipeline\.search .*)--trials 30 (.*)",
        r"\1--trials 1 --slots 1 \2 trainer.accelerator=cpu",
        "thirty trainings",
    ),
    # clusters
    not_run(r"python -m pipeline\.train -m hydra/launcher=slurm .*", "a Slurm cluster"),
    not_run(r"srun .*", "a Slurm cluster"),
    not_run(r"torchrun .*", "two machines"),
    not_run(r"ssh .*", "another machine"),
    *as_it_stands(r"source \.venv/bin/activate"),
    # MLflow
    smaller(
        r"mlflow server --host \S+ --port 5000 (--allowed-hosts) \S+ (--cors\S+) \S+ .*",
        SERVE
        % (
            r"mlflow server --port $PORT \1 127.0.0.1:$PORT \2 http://127.0.0.1:$PORT "
            r"--workers 1 --backend-store-uri sqlite:///../server.db "
            r"--artifacts-destination ../artifacts",
            "health",
        ),
        "sqlite and a folder in place of a database and a bucket, on this machine only",
    ),
    smaller(
        r"export MLFLOW_TRACKING_URI=http://SERVER:5000",
        r"export MLFLOW_TRACKING_URI=http://127.0.0.1:$PORT",
        "the server is here",
    ),
    smaller(
        r"(mlflow models serve .*) -p 5001",
        SERVE % (r"\1 -p $PORT --workers 1", "ping"),
        "a free port",
    ),
    *as_it_stands(r"echo '.*' > request\.json"),
    smaller(r"(curl .*):5001/(\w+)", r"\1:$PORT/\2", "a free port"),
    # the wheel
    smaller(
        r"pip wheel \. --no-deps -w dist",
        r"CC=false python -m pip wheel -q . --no-deps --no-build-isolation -w dist",
        "without the compiler (the extension is optional) and without a download",
    ),
    smaller(
        r"pip install (dist/\S+)",
        r"python -m pip install -q --no-deps --target ../installed \1",
        "into a folder of its own",
    ),
    smaller(
        r"atrous-predict photos --model model\.ckpt",
        r"mkdir ../away && cp -r photos runs/v3plus-resnet18-os16/model.ckpt ../away && cd ../away "
        r"&& PYTHONPATH=$PWD/../installed \g<0> && cd -",
        "in a folder without the project",
    ),
    # benchmarks
    not_run(r"python -m benchmarks\..*", "minutes to hours, and real photographs"),
]


def rule_for(page: str, command: str) -> Rule | None:
    """The first rule for a command of a page."""
    fits = (
        rule for rule in RULES if fnmatch(page, rule.page) and re.fullmatch(rule.pattern, command)
    )
    return next(fits, None)


def to_run(rule: Rule, command: str) -> str | None:
    """What runs in a command's place; None: nothing."""
    if rule.run is None:
        return None
    found = re.fullmatch(rule.pattern, command)
    return found.expand(rule.run) if found else None
