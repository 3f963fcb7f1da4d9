"""The `prepare` job: read -> parse -> check -> encode (Ray Data tasks) -> de-duplicate -> split -> write.

Each task reads a part of the input, a few MB, and writes a table of encoded documents to disk. This process does only
what concerns all documents: it reads the tables in the order of the input, leaves out duplicates, appends the rest to
the store and, at the end, splits it. So the output does not depend on the number of tasks, and no process holds more
than a few parts. The tables stay until the store is finished, so that an interrupted run continues.
"""

import dataclasses
import json
import logging
import pickle
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nanochat_tct.data import encoded_parts
from nanochat_tct.data.config import PrepareConfig
from nanochat_tct.data.encode import ENCODED_VERSION
from nanochat_tct.data.encoded_parts import EncodedParts, encode_task
from nanochat_tct.data.parts import Part, plan_parts
from nanochat_tct.data.repository import owner_of
from nanochat_tct.data.sources import Source, find_sources, sources_fingerprint
from nanochat_tct.data.store import METADATA, REJECTED, TokenStore, upload_store
from nanochat_tct.data.store_writer import StoreWriter
from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.limits import refuse_folder
from nanochat_tct.ray_compat import PROGRESS_LOGGER
from nanochat_tct.ray_session import start_ray, user_errors
from nanochat_tct.storage.files import writing_to
from nanochat_tct.storage.object_storage import RemoteFolder, is_remote, local_path
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.terminal import with_progress

SPLIT_RULE = "by owner, near-duplicates apart"  # a store with another rule is written again
FEW_OWNERS = 5  # with fewer, validation consists of one or two owners
UNEVEN = 0.2  # warn if the training split differs by more from the fraction asked for
PROGRESS_SECONDS = 10  # between lines of progress when there is no terminal


def prepare(config: PrepareConfig) -> TokenStore:
    """Write a token store, unless it is up to date already, and print a summary. Starts Ray if it is not running.

    Raises:
        UserError: nothing to read, too many bad documents, or an output that cannot be written.
    """
    begin = time.monotonic()
    tokenizer = load_tokenizer(config.tokenizer)
    sources = find_sources(config.input)
    identity = {
        "files": len(sources),
        "fingerprint": sources_fingerprint(sources),
        "limits": dataclasses.asdict(config.limits()),
        "export_pt": config.export_pt,
        "masks": config.masks,
        "split": SPLIT_RULE,
    }
    store = _find_unchanged(config, tokenizer, identity) or _write(
        config, tokenizer, sources, identity, begin
    )
    for line in split_warnings(store):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    return store


def _find_unchanged(config: PrepareConfig, tokenizer: Any, identity: dict[str, Any]) -> TokenStore | None:
    """The finished store of an equal earlier run, if there is one; it is uploaded if that failed before."""
    output = local_path(config.output)
    candidates: list[str | Path] = [output] if output.is_dir() else []
    if is_remote(config.output):
        RemoteFolder(config.output).files()  # raises before the work if the storage refuses
        candidates.append(config.output)
    for candidate in candidates:
        try:
            store = TokenStore.open(candidate)
        except StorageError:
            raise
        except UserError:
            continue  # missing, half-written or damaged, so it is written again
        if (
            store.manifest["input"] == json.loads(json.dumps(identity))
            and store.manifest["settings"] == dataclasses.asdict(config.settings())
            and store.tokenizer_fingerprint == tokenizer.fingerprint
        ):
            is_new = is_remote(config.output) and upload_store(output, config.output)
            what = "prepared before, and brought there now" if is_new else "up to date"
            documents = store.manifest["counts"]["documents"]
            print(f"{config.output} is {what}: {documents:,} documents; nothing to do")
            encoded_parts.clear(output)  # left by a run that was killed after it finished the store
            return store
    return None


def _write(
    config: PrepareConfig, tokenizer: Any, sources: list[Source], identity: dict[str, Any], begin: float
) -> TokenStore:
    output = local_path(config.output)
    refuse_folder(config.output, "--output")
    with StoreWriter(output, tokenizer, config.settings(), config.masks) as writer:
        parts = plan_parts(sources)
        work = repr((parts, config.limits(), config.masks, tokenizer.fingerprint, ENCODED_VERSION))
        with writing_to(output):
            done = EncodedParts(output, work)
        if done.count:
            print(f"going on: {done.count} of {len(parts)} parts are encoded already", flush=True)
        try:
            ray_begin = time.monotonic()
            if done.count < len(parts):
                start_ray()
            ray_seconds = time.monotonic() - ray_begin
            total = sum(part.documents for part in parts)
            tables = _tables(parts, done, output, config, tokenizer)
            shown = with_progress(tables, total, "preparing {} of {} documents", len, PROGRESS_SECONDS)
            with closing(shown):  # removes the bar before an error is printed
                for table in shown:
                    writer.add_table(table)
            _check_rejected(writer, config)
            store = writer.commit(identity, config.export_pt)
        except StorageError:
            raise  # the parts stay: the same command continues once the storage works again
        except UserError:
            encoded_parts.clear(output)  # the user will change the input or the settings, or needs the space
            raise
        encoded_parts.clear(output)
    if is_remote(config.output):
        upload_store(store.folder, config.output)
    _print_summary(store, time.monotonic() - begin, ray_seconds)
    return store


def _tables(
    parts: list[Part], done: EncodedParts, output: Path, config: PrepareConfig, tokenizer: Any
) -> Iterator[pa.Table]:
    """The tables of all parts in the order of the input."""
    yield from map(done.read, range(done.count))
    if done.count == len(parts):
        return
    contents = _encoded(parts[done.count :], done, config, tokenizer)
    for index, content in enumerate(contents, start=done.count):
        if content is not None:
            with writing_to(output):
                encoded_parts.write(done.path(index), content)
        yield done.read(index)


def _encoded(
    parts: list[Part], done: EncodedParts, config: PrepareConfig, tokenizer: Any
) -> Iterator[bytes | None]:
    """Encode the parts on Ray. Yields for each, in order, the table's file if the task could not write it."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger(PROGRESS_LOGGER).setLevel(logging.ERROR)  # else Ray warns that its bars are off
    blocks = [
        pa.table({"part": [pickle.dumps(part)], "path": [str(done.path(index))]})
        for index, part in enumerate(parts, start=done.count)
    ]
    dataset = ray.data.from_arrow(blocks).map_batches(
        encode_task,  # type: ignore[arg-type]  # Ray's type does not allow for fn_kwargs
        batch_format="pyarrow",
        batch_size=None,  # a task for each block, which is one part
        fn_kwargs={
            "run": done.run,
            "tokenizer_name": config.tokenizer,
            "fingerprint": tokenizer.fingerprint,
            "limits": config.limits(),
            "with_masks": config.masks,
        },
        compute=ray.data.TaskPoolStrategy(size=config.concurrency),
    )
    options = dataset.context.execution_options
    options.preserve_order = True
    if config.concurrency is not None:
        # Otherwise a cluster's autoscaler would add machines that have nothing to do.
        options.resource_limits = ray.data.ExecutionResources.for_limits(cpu=config.concurrency)
    dataset.context.enable_progress_bars = False  # ours counts documents, Ray's count blocks
    with user_errors():
        for row in dataset.iter_rows():
            if row["error"] is not None:
                raise StorageError(row["error"])
            yield row["content"]


def _check_rejected(writer: StoreWriter, config: PrepareConfig) -> None:
    rejected = writer.rejected.total()
    documents = writer.num_documents + writer.duplicates + rejected
    if documents == 0:
        raise UserError(f"--input {' '.join(config.input)}: the files hold no document")
    if writer.first_rejected is None:
        return
    why = ", ".join(f"{count:,} {reason}" for reason, count in writer.rejected.most_common())
    example = f"; the first: {writer.first_rejected['source']}: {writer.first_rejected['message']}"
    if rejected == documents:
        raise UserError(f"none of the {documents:,} documents is usable ({why}){example}")
    if rejected > config.max_rejected * documents:
        raise UserError(
            f"{rejected:,} of {documents:,} documents are bad ({why}), more than "
            f"--max-rejected {config.max_rejected:g} allows{example}"
        )


def split_warnings(store: TokenStore) -> list[str]:
    """A line for each thing that is unusual about the split, with the reason and what to do."""
    counts, settings = store.manifest["counts"], store.manifest["settings"]
    documents, val, near = (counts[name] for name in ("documents", "val_documents", "near_duplicates"))
    fraction, train = settings["train_split"], counts["train_documents"]
    more = "add documents of other owners"
    if fraction == 0:
        return ["--train-split 0 leaves nothing to train on: this store can only be evaluated on"]
    if fraction == 1:
        return ["--train-split 1 leaves nothing to validate on, which `train` needs: take a smaller one"]
    if documents == 1:
        return [f"there is one document, and so none to validate on, which `train` needs: {more}"]
    if val == 0:
        return [
            f"the validation split is empty: each of its {near:,} documents is a near-duplicate of one in training; "
            f"{more}, or take another --split-seed or a smaller --train-split"
        ]
    metadata = json.loads((store.folder / METADATA).read_text())
    warnings = [
        f"no document of the {name} split is as long as a window of {settings['context_size']} tokens: take a "
        "smaller --context-size, or --windowing stream"
        for name, split in (("training", "train"), ("validation", "val"))
        if metadata[f"num_{split}"] == 0
    ]
    repos = store.read_documents(["repo"]).column("repo")
    owners = {owner_of(repo) for repo in repos.unique().to_pylist() if repo}
    are_few = len(owners) < FEW_OWNERS and repos.null_count == 0
    if store.manifest["split_by"] == "document":
        warnings.append(
            f"all documents are of one owner ({min(owners)}), so they are split one by one: templates that they share "
            f"make validation look better than it is; {more}"
        )
    elif owners and (are_few or abs(train / documents - fraction) > UNEVEN):
        warnings.append(
            f"{train / documents:.0%} of the documents are for training ({fraction:.0%} is asked for): the split is by "
            f"owner, and there are {len(owners):,}; {more}, or take another --split-seed"
        )
    return warnings


def _print_summary(store: TokenStore, seconds: float, ray_seconds: float) -> None:
    counts, settings = store.manifest["counts"], store.manifest["settings"]
    metadata = json.loads((store.folder / METADATA).read_text())
    size = sum(file["size"] for file in store.manifest["files"].values())
    read = counts["documents"] + counts["duplicates"] + counts["rejected"]
    reasons = sorted(counts["rejected_by_reason"].items(), key=lambda item: -item[1])
    repos, lengths = store.read_documents(["repo", "length"]).columns
    lengths = lengths.to_numpy()
    p5, p50, p95 = np.percentile(lengths, [5, 50, 95])
    repositories = repos.unique().drop_null().to_pylist()
    owners = len({owner_of(repo) for repo in repositories})
    of_owners = f" of {len(repositories):,} repositories, {owners:,} owners" if repositories else ""
    near = counts["near_duplicates"]
    left_out = f" and {near:,} near-duplicates of training out of validation" if near else ""
    lines = [
        f"prepared {store.folder} in {seconds:.1f} s ({read / seconds:,.0f} documents/s), "
        f"of which {ray_seconds:.1f} s to start Ray",
        f"  documents  {counts['documents']:,}{of_owners} (train {counts['train_documents']:,}, "
        f"val {counts['val_documents']:,}); {counts['duplicates']:,} duplicates left out{left_out}",
        f"  tokens     {counts['tokens']:,}; a document has {lengths.mean():,.0f} on average, "
        f"5% {p5:,.0f}, 50% {p50:,.0f}, 95% {p95:,.0f}, at most {lengths.max():,}",
        f"  windows    {counts['windows']:,} of {settings['context_size']} + 1, {settings['windowing']} "
        f"(train {metadata['num_train']:,}, val {metadata['num_val']:,})",
        f"  rejected   {counts['rejected']:,} of {read:,}"
        + "".join(f", {count:,} {reason}" for reason, count in reasons)
        + (f": see {store.folder / REJECTED}" if counts["rejected"] else ""),
        *([f"  masks      {len(store.masks):,} of legal tokens"] if store.masks is not None else []),
        f"  bytes      {counts['json_bytes']:,} of compact JSON, {2 * counts['tokens']:,} of tokens, "
        f"{size:,} in all files",
        f"  tokenizer  {store.tokenizer_name}, fingerprint {store.tokenizer_fingerprint[:12]}; "
        f"data fingerprint {store.fingerprint[:12]}",
    ]
    print("\n".join(lines), flush=True)
