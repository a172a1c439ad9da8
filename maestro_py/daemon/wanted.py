# SPDX-License-Identifier: Apache-2.0
"""The wanted state: its layers, what they resolve to, and how they are stored.

shipped templates < config file < document < stored configs, then what a person enabled or disabled.
A new document has the last word on the jobs and configs it names.
A process whose new version could not be had, or did not prove itself, is *held*: the pieces it ran with
stay in force for it. One that runs a new version is *on trial*: the pieces to go back to are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any, Literal

from maestro_py.daemon import log
from maestro_py.errors import InvalidDocument, Problem
from maestro_py.plan import Wanted
from maestro_py.spec.documents import (
    check_references,
    read_stored,
    to_json,
)
from maestro_py.spec.expand import resolve
from maestro_py.spec.layers import ConfigKey, Layer, layer, merge
from maestro_py.spec.model import ConfigSpec, RunningConfig
from maestro_py.spec.places import Places
from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.state.store import Key, Store
from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
class Held:
    """A process that stays as it was, and why.

    refused: the definition that was tried and rolled back; it is not tried again while it is what the
    sources say. None: it could not be tried.
    """

    layer: Layer
    reason: str
    refused: Layer | None = None


@valueclass(frozen=True)
class Sources:
    """Everything that takes part in the wanted state."""

    shipped: Layer = Layer()
    file: Layer = Layer()
    stored_configs: Mapping[ConfigKey, ConfigSpec] = field(default_factory=dict)
    document: Layer = Layer()
    date: int = 0
    disabled: Mapping[str, bool] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    trials: Mapping[str, Layer] = field(default_factory=dict)

    def in_force(self) -> Layer:
        """Return the merged definitions."""
        return merge(
            (self.shipped, self.file, self.document, Layer(configs=self.stored_configs)), self.disabled
        )

    def with_document(self, document: RunningConfig, *, retry: bool = False) -> Sources:
        """Return the sources with another document; it has the last word on its own jobs.

        retry: what was rolled back is tried again.
        """
        upper = layer(document.jobs, document.templates, document.images, document.configs)
        return replace(
            self,
            document=upper,
            date=document.date,
            disabled={job: off for job, off in self.disabled.items() if job not in upper.jobs},
            stored_configs={k: c for k, c in self.stored_configs.items() if k not in upper.configs},
            held={name: held for name, held in self.held.items() if held.refused and not retry},
        ).settled()

    def settled(self) -> Sources:
        """Return the sources without what was held because of a definition that they have no more."""
        held = {
            name: held
            for name, held in self.held.items()
            if held.refused is None or held.refused == self.defined(name)
        }
        return self if len(held) == len(self.held) else replace(self, held=held)

    def pieces_of(self, process: str) -> Layer:
        """Return what is in force for one process, to hold on to it."""
        return self.held[process].layer if process in self.held else self.defined(process)

    def defined(self, process: str) -> Layer:
        """Return what the sources say of one process, held or not, and whoever switched its jobs off."""
        force = replace(self, disabled={}).in_force()
        jobs = {name: job for name, job in force.jobs.items() if job.process == process}
        templates = {job.container_template for job in jobs.values()}
        return Layer(
            jobs,
            {name: t for name, t in force.templates.items() if name in templates},
            {name: image for name, image in force.images.items() if name in jobs},
            {key: config for key, config in force.configs.items() if config.job in jobs},
        )


def resolved(
    sources: Sources, places: Places, source: str = "running config"
) -> tuple[Wanted, list[Problem]]:
    """Return what the sources ask for, and warnings. Raises InvalidDocument with every problem."""
    force = sources.in_force()
    errors, warnings = check_references(
        tuple(force.jobs.values()),
        tuple(force.templates.values()),
        tuple(force.images.values()),
        tuple(force.configs.values()),
    )
    if errors:
        raise InvalidDocument(source, errors)
    processes = _resolve(force, places)
    images, configs = dict(force.images), dict(force.configs)
    for name, held in sources.held.items():
        layer = merge((held.layer,), sources.disabled)
        processes.update({n: p for n, p in _resolve(layer, places).items() if n == name})
        images.update(held.layer.images)
        configs.update(held.layer.configs)
    for process in processes.values():
        configs.update({(config.job, config.name): config for config in process.configs})
    wanted = Wanted(
        processes=processes,
        jobs={name: job.process for name, job in force.jobs.items()},
        images=images,
        configs=configs,
    )
    return wanted, warnings


def resolved_in_part(sources: Sources, places: Places) -> tuple[Wanted, list[Problem], dict[str, str]]:
    """Return what can be made of stored sources, warnings, and process -> why for what cannot.

    A job whose template is gone from the device must not keep all others down.
    """
    broken: dict[str, str] = {}
    left_out: set[str] = set()
    while True:
        try:
            want, warnings = resolved(_less(sources, left_out), places, "stored state")
        except InvalidDocument as error:
            jobs = sources.in_force().jobs
            bad = {name for name in jobs if any(_is_about(p, name) for p in error.problems)} - left_out
            if not bad:
                raise
            for name in bad:
                why = "; ".join(p.message for p in error.problems if _is_about(p, name))
                broken.setdefault(jobs[name].process, f"{name}: {why}")
            gone = {jobs[name].process for name in bad}
            left_out |= {name for name, job in jobs.items() if job.process in gone}
            continue
        shells = {name: ResolvedProcess(name=name, members=()) for name in broken}
        jobs_of = {name: sources.in_force().jobs[name].process for name in left_out}
        return (
            replace(want, processes={**want.processes, **shells}, jobs={**want.jobs, **jobs_of}),
            warnings,
            broken,
        )


def _is_about(problem: Problem, job: str) -> bool:
    return problem.path.startswith(f'jobs["{job}"]')


def _less(sources: Sources, jobs: set[str]) -> Sources:
    def without(layer: Layer) -> Layer:
        kept = {name: job for name, job in layer.jobs.items() if name not in jobs}
        return replace(layer, jobs=kept)

    held = {n: h for n, h in sources.held.items() if not set(h.layer.jobs) & jobs}
    return replace(sources, file=without(sources.file), document=without(sources.document), held=held)


def _resolve(layer: Layer, places: Places) -> dict[str, Any]:
    return resolve(
        tuple(layer.jobs.values()),
        tuple(layer.templates.values()),
        tuple(layer.images.values()),
        tuple(layer.configs.values()),
        places,
    )


# Storing: one entry per definition, so that a change writes only what changed.


_KINDS = ("meta", "job", "template", "image", "config", "stored-config", "disabled", "held", "trial")


def entries(sources: Sources) -> dict[Key, Any]:
    """Return the store's entries for everything that does not come from files."""
    found: dict[Key, Any] = {("meta", "date"): sources.date}
    found |= _layer_entries(sources.document)
    for key, config in sources.stored_configs.items():
        found["stored-config", "\t".join(key)] = to_json(config)
    for job, off in sources.disabled.items():
        found["disabled", job] = off
    for process, held in sources.held.items():
        value: dict[str, Any] = {"reason": held.reason, "pieces": _pieces(held.layer)}
        if held.refused is not None:
            value["refused"] = _pieces(held.refused)
        found["held", process] = value
    for process, before in sources.trials.items():
        found["trial", process] = _pieces(before)
    return found


def _pieces(layer: Layer) -> dict[str, Any]:
    return {f"{kind}\t{key}": value for (kind, key), value in _layer_entries(layer).items()}


def _read_pieces(value: Mapping[str, Any]) -> Layer:
    pieces: dict[str, list[Any]] = {}
    for key, piece in value.items():
        pieces.setdefault(key.partition("\t")[0], []).append(piece)
    return _read_layer(pieces)


def _layer_entries(layer: Layer) -> dict[Key, Any]:
    found: dict[Key, Any] = {("job", name): to_json(job) for name, job in layer.jobs.items()}
    found |= {("template", name): to_json(template) for name, template in layer.templates.items()}
    found |= {("image", job): to_json(image) for job, image in layer.images.items()}
    found |= {("config", "\t".join(key)): to_json(config) for key, config in layer.configs.items()}
    return found


def load(store: Store, shipped: Layer, file: Layer) -> Sources:
    """Return the sources as stored, on top of what files say now."""
    held, trials = {}, {}
    for process, value in store.entries("held").items():
        try:
            refused = _read_pieces(value["refused"]) if "refused" in value else None
            held[process] = Held(_read_pieces(value["pieces"]), str(value["reason"]), refused)
        except (AttributeError, KeyError, TypeError) as error:
            log.error(f"dropping what was held for {process}, nobody can read it: {error!r}")
    for process, value in store.entries("trial").items():
        try:
            trials[process] = _read_pieces(value)
        except (AttributeError, TypeError) as error:
            log.error(f"dropping what {process} could go back to, nobody can read it: {error!r}")
    stored = _read("config", store.entries("stored-config").values())
    date = store.entries("meta").get("date", 0)
    return Sources(
        shipped=shipped,
        file=file,
        stored_configs={(config.job, config.name): config for config in stored},
        document=_read_layer(
            {kind: store.entries(kind).values() for kind in ("job", "template", "image", "config")}
        ),
        date=date if isinstance(date, int) else 0,
        disabled={job: off is True for job, off in store.entries("disabled").items()},
        held=held,
        trials=trials,
    )


def _read_layer(values: Mapping[str, Iterable[Any]]) -> Layer:
    return layer(
        _read("job", values.get("job", ())),
        _read("template", values.get("template", ())),
        _read("image", values.get("image", ())),
        _read("config", values.get("config", ())),
    )


def _read(kind: Literal["job", "template", "image", "config"], values: Iterable[Any]) -> list[Any]:
    """Return the stored definitions; one that nobody can read is dropped, and said."""
    found = []
    for value in values:
        try:
            found.append(read_stored(kind, value))
        except InvalidDocument as error:
            # not the whole of it: data and environment of jobs are nobody else's business
            name = (value.get("job") or value.get("name")) if isinstance(value, dict) else value
            log.error(f"dropping a stored {kind} that nobody can read: {name!r}: {error}")
    return found


def save(store: Store, sources: Sources) -> None:
    """Store the sources in one transaction. Raises MaestroError, and then nothing changed."""
    wanted = entries(sources)
    store.change(wanted, {key for key in store.all_keys() if key[0] in _KINDS} - set(wanted))
