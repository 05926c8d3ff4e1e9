"""A model's results as one file, without images and weights, so that they stand beside others' on every page. Of what
is imported, `outputs/imported/` has the model's card, `<slug>.yml`, and the file's record, `<slug>.json`."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd
import yaml

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import MADE_FROM, atomic_write, file_hash, hash_of, write_parquet, write_record
from mlprobe_utils.pipeline import artefacts, cards
from mlprobe_utils.pipeline.artefacts import FILES, Artefact, from_outputs, relative, stale
from mlprobe_utils.pipeline.cards import ModelCard, imported, load_data_card, load_model_card, load_protocol
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.places import places
from mlprobe_utils.pipeline.results import SIZES, Selection, adapter_sizes
from mlprobe_utils.pipeline.stages import STAGES
from mlprobe_utils.pipeline.variants import discussed_on, discussions, taking_part

SUFFIX = ".results.zip"
RECORD, HASHES, CARD = "exchange.json", "hashes.json", "card.yml"
OWN_MACHINE = ("slug", "made_by", "recipe")  # fields of a card that say how its weights are made


def export_results(model: str, datasets: list[str], protocol: str, split_rule: str, file: Path | None = None) -> None:
    """Writes a model's rows, card and provenance, with those of its discussions that are there, to a file (None:
    `<model>.results.zip`), and prints its name. InputError for what is not current, with the command that makes it."""
    file = file or Path(f"{model}{SUFFIX}")
    of_set = {place.image_set.card.slug: place for place in places(model, datasets, protocol, split_rule)}
    made, discussed = [], []
    for dataset, place in of_set.items():
        made += (own := [*place.of_pipeline()])
        if behind := stale(own):
            command = Selection((model,), (dataset,), protocol, split_rule).command(model, dataset)
            raise InputError(f"{from_outputs(behind[0].folder)} is not up to date: run `{command}` before the export")
    for card in (own for own in discussions() if taking_part(own, [model])):
        own = [one for dataset in discussed_on(card, of_set) for one in of_set[dataset].of_discussion(card)]
        if not stale(own):
            discussed.append(card.slug)
            made += own
    # whoever imports draws the same fresh phantoms
    contents = {name: data for one in made if one.stage != "fresh phantoms" for name, data in _contents(one).items()}
    card = load_model_card(model)
    here = card.made_by or Path(card.source).expanduser().exists()
    card = card.model_dump(mode="json", exclude_defaults=True, exclude={*OWN_MACHINE})
    card |= {"source": "missing weights"} if here else {}
    record = {"model": model, "protocol": protocol, "split_rule": split_rule}
    record |= {"protocol_hash": load_protocol(protocol).content_hash, "discussions": discussed}
    record |= {"datasets": {dataset: place.image_set.data_hash for dataset, place in of_set.items()}}
    record |= {"prompts": {slug: load_data_card(slug).other_prompts for slug in of_set}, "commit": artefacts.commit()}
    contents |= {CARD: yaml.safe_dump(card, allow_unicode=True).encode(), RECORD: json.dumps(record, indent=1).encode()}
    hashes = json.dumps({name: hash_of(data) for name, data in contents.items()}, indent=1).encode()
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (contents | {HASHES: hashes}).items():
            archive.writestr(name, data)
        archive.comment = hash_of(hashes).encode()
    atomic_write(file, packed.getvalue())
    print(file)


def _contents(one: Artefact) -> dict[str, bytes]:
    """The files of an artefact by their path below `outputs/`; of tensors no more than the sizes of an adapter's."""
    files = [path for path in sorted(one.folder.iterdir()) if path.suffix != ".safetensors"]
    contents = {from_outputs(path): path.read_bytes() for path in files}
    if (one.folder / "adapter_model.safetensors").is_file():
        contents[from_outputs(one.folder / SIZES)] = json.dumps(adapter_sizes(one.folder)).encode()
    return contents


def import_results(file: Path) -> str:
    """Unpacks a file of `export_results` into `outputs/`; its name is the model's slug here, which is returned.
    InputError for no such file, one changed or made by other versions of the stages, and a slug that is taken."""
    slug, name = file.name.removesuffix(SUFFIX), relative(file)
    if not file.is_file():
        raise InputError(f"there is no {name}: give a file that `mlprobe export` wrote")
    if (cards.CARDS / ModelCard.folder / f"{slug}.yml").exists():
        raise InputError(f"{name}: you have a model '{slug}': rename the file, whose name is the model's slug here")
    if (imported(slug) or {}).get("file") == (content := file_hash(file)) and not _damage(slug):
        return slug
    contents, record, card = _opened(file, name)
    old, home, split_rule = record["model"], artefacts.OUTPUTS / cards.IMPORTED, record["split_rule"]
    known = {other: load_model_card(other).name for other in cards.slugs(ModelCard) if other != slug}
    card |= {"name": f"{card['name']} ({slug})"} if card["name"] in known.values() else {}
    if "/" not in (base := card.get("base", "/")) and base not in known:
        del card["base"]
    home.mkdir(parents=True, exist_ok=True)
    (home / f"{slug}.json").unlink(missing_ok=True)
    cards.write_card(ModelCard, home / f"{slug}.yml", yaml.safe_dump(card, allow_unicode=True))
    for dataset in record["datasets"]:
        shutil.rmtree(artefacts.OUTPUTS / record["protocol"] / dataset / split_rule / slug, ignore_errors=True)
    targets = {entry: artefacts.OUTPUTS / entry.replace(f"/{old}/", f"/{slug}/") for entry in contents}
    kept = {target.parent for target in targets.values() if (target.parent / FILES).exists()}  # controls of all models
    for entry, target in ((entry, target) for entry, target in targets.items() if target.parent not in kept):
        target.parent.mkdir(parents=True, exist_ok=True)
        data = contents[entry]
        if entry.endswith(".parquet") and "model" in (rows := pd.read_parquet(io.BytesIO(data))):
            write_parquet(rows.assign(model=rows["model"].mask(rows["model"] == old, slug)), target)
        else:
            data = data.replace(f"/{old}/".encode(), f"/{slug}/".encode()) if target.name == MADE_FROM else data
            atomic_write(target, data)
    for folder in {target.parent for target in targets.values()} - kept:
        artefacts.complete(folder)
    write_record(home / f"{slug}.json", record | {"file": content})
    cards.load_card.cache_clear()
    return slug


def _opened(file: Path, name: str) -> tuple[dict[str, bytes], dict, dict]:
    """The artefacts' files, the record and the card of an exported file, whose hashes and versions hold."""
    try:
        with zipfile.ZipFile(file) as archive:
            contents = {entry: archive.read(entry) for entry in archive.namelist()}
            sealed = archive.comment.decode()
        stated = json.loads(hashes := contents.pop(HASHES))
        found = {entry: hash_of(data) for entry, data in contents.items()}
        changed = [entry for entry in {**stated, **found} if stated.get(entry) != found.get(entry)]
        if changed or sealed != hash_of(hashes):
            raise InputError(f"{name} was changed after its export ({', '.join(changed) or HASHES}): export it again")
        record, card = json.loads(contents.pop(RECORD)), yaml.safe_load(contents.pop(CARD))
        made = [json.loads(data) for entry, data in contents.items() if entry.endswith(MADE_FROM)]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{name} is not a complete file of `mlprobe export` ({error}): export it again") from error
    if outside := [entry for entry in contents if ".." in (parts := PurePosixPath(entry).parts) or parts[0] == "/"]:
        raise InputError(f"{name} contains {outside[0]}, which points outside outputs/: do not use it")
    for one in made:
        here = STAGES[one["stage"]].version if one["stage"] in STAGES else "none"
        if one["version"] != here:
            found = f"'{one['stage']}' is of version {one['version']}, and of version {here} in this project"
            raise InputError(f"{name}: {found}: create and export it with the same version of the project")
    return contents, record, card


def _damage(slug: str) -> str:
    record = imported(slug)
    of_run = (artefacts.OUTPUTS / record["protocol"] / dataset / record["split_rule"] for dataset in record["datasets"])
    folders = [path.parent for place in of_run for path in (place / slug).rglob(MADE_FROM)]
    found = ((folder, artefacts.damage_of(folder)) for folder in folders)
    return next((f"{relative(folder)}: {wrong}" for folder, wrong in found if wrong), "")


def check_imported(model: str, datasets: Iterable[str], protocol: str, split_rule: str) -> None:
    """Raises InputError where imported results are damaged, or of other settings or images than a run."""
    if wrong := _damage(model):
        raise InputError(f"the imported results '{model}' are damaged ({wrong}): give {model}{SUFFIX} in MODELS again")
    record, where = imported(model), f"the imported results '{model}' are of"
    if record["protocol"] != protocol or record["split_rule"] != split_rule:
        mend = f"choose these, PROTOCOL={record['protocol']} SPLIT={record['split_rule']}"
        raise InputError(f"{where} protocol '{record['protocol']}' and split rule '{record['split_rule']}': {mend}")
    if record["protocol_hash"] != load_protocol(protocol).content_hash:
        raise InputError(f"{where} a protocol '{protocol}' with other values: compare data/protocols/")
    for dataset in datasets:
        if (data := record["datasets"].get(dataset)) is None:
            mend = f'choose DATASETS="{" ".join(record["datasets"])}", or export it with this one'
            raise InputError(f"{where} other data sets than '{dataset}': {mend}")
        if data != load_image_set(dataset, protocol).data_hash:
            raise InputError(f"{where} other images, splits or another question of '{dataset}' than are here")
        if record.get("prompts", {}).get(dataset) != load_data_card(dataset).other_prompts:
            raise InputError(f"{where} other `paraphrases` of '{dataset}' than here: write the same into its card")
