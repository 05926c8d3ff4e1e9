"""The graph: image sets and checkpoints -> one process a model, one for all baselines -> book.

`make book` writes it, as JSON, for each run: what there is to do is decided there by the artefacts themselves, which know
what they were made from, and not by the times of files: a job whose artefacts are current has its stamp, any other has
none. The artefacts are written whole or not at all by the commands, which skip what is current: so nothing that was made
before is lost when a job fails, and a killed run goes on where it was.
"""

import os

from mlprobe_utils.common.progress import end_with

if progress := os.environ.get("MLPROBE_PROGRESS"):  # not where the graph is only planned
    end_with(progress)
JOBS = {job["stamp"]: job for job in config["jobs"]}


rule all:
    input:
        [*JOBS],


for kind in {job["kind"]: None for job in JOBS.values()}:

    rule:
        name: kind
        input:
            lambda wildcards, kind=kind: [ancient(path) for path in JOBS[f"{config['stamps']}/{kind}/{wildcards.name}"]["after"]],
        output:
            f"{config['stamps']}/{kind}/{{name}}",
        params:
            command=lambda wildcards, kind=kind: JOBS[f"{config['stamps']}/{kind}/{wildcards.name}"]["command"],
            jobs=lambda wildcards, threads, kind=kind: f"--jobs {threads}" if kind == "pages" else "",
        threads: workflow.cores if kind == "pages" else 1
        # the shortest of the jobs that may come last: begun before a model, it would leave a core idle in the end
        priority: 0 if kind == "baselines" else 1
        shell:
            "{params.command} {params.jobs} && touch {output:q}"
