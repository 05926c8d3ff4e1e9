"""The graph: image sets and checkpoints -> one process a model, one for all baselines -> book.

What there is to do is not decided here, by the times of files, but by the artefacts themselves, which know what they
were made from (`mlprobe_utils.pipeline.jobs`): a job whose artefacts are current has its stamp, any other has none.
The artefacts are written whole or not at all by the commands, which skip what is current: so nothing that was made
before is lost when a job fails, and a killed run goes on where it was. Started by `make book`, which checks the
configuration first.
"""

import shlex
import sys

from mlprobe_utils.book.make_book import BOOK, graph, stamp
from mlprobe_utils.pipeline.configuration import configure
from mlprobe_utils.pipeline.jobs import KINDS, due

GIVEN = {"models": [], "datasets": [], "protocol": "miniature", "split": "paper", "data": "", "target": BOOK} | config
TARGET = GIVEN.pop("target")
RUN = configure(**GIVEN)
JOBS = {(job.kind, job.name): job for job in graph(RUN, TARGET)}


def command(kind, name, threads):
    options = ["--jobs", str(threads)] if kind == BOOK else []
    return shlex.join([sys.executable, "-m", "mlprobe_utils", *JOBS[kind, name].command, *options])


if workflow.is_main_process:  # a job of a cluster reads this file, too, while others run
    to_do = due(JOBS.values())
    for place, job in JOBS.items():
        path = stamp(RUN, *place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True) if job in to_do else path.touch()


rule all:
    input:
        [str(stamp(RUN, *place)) for place in JOBS],


for kind in KINDS:

    rule:
        name: kind
        input:
            lambda wildcards, kind=kind: [
                ancient(str(stamp(RUN, job.kind, job.name))) for job in JOBS[kind, wildcards.name].after
            ],
        output:
            str(stamp(RUN, kind, "{name}")),
        params:
            command=lambda wildcards, threads, kind=kind: command(kind, wildcards.name, threads),
        threads: workflow.cores if kind == BOOK else 1
        # the shortest of the jobs that may come last: begun before a model, it would leave a core idle in the end
        priority: 0 if kind == "baselines" else 1
        shell:
            "{params.command} && touch {output:q}"
