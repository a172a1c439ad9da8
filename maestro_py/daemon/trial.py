# SPDX-License-Identifier: Apache-2.0
"""Could this version of maestrod go on with what is stored? Looks at copies of the databases."""

from __future__ import annotations

import json
import os
import sqlite3

from maestro_py.daemon import wanted
from maestro_py.daemon.ledger import Kept
from maestro_py.daemon.paths import Paths
from maestro_py.errors import MaestroError
from maestro_py.spec import codec
from maestro_py.spec.layers import Layer
from maestro_py.spec.places import Places
from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.state.database import Database
from maestro_py.state.running import RunStore
from maestro_py.state.store import Store


def check(paths: Paths, templates: Layer, file: Layer, places: Places) -> None:
    """Load everything a start would load. Raises MaestroError for what cannot be."""
    scratch = os.path.join(paths.scratch, f"trial-{os.getpid()}")
    os.mkdir(scratch, 0o700)
    try:
        store = Store(_copied(paths.database, scratch))
        _whole(store)
        sources = wanted.load(store, templates, file)
        for kind, found in (
            ("job", sources.document.jobs),
            ("template", sources.document.templates),
            ("image", sources.document.images),
            ("config", sources.document.configs),
        ):
            if len(found) != len(store.entries(kind)):
                raise MaestroError(f"cannot read every {kind} that is stored")
        wanted.resolved_in_part(sources, places)
        run_store = RunStore(_copied(os.path.join(paths.run, "run.db"), scratch))
        _whole(run_store)
        for process, record in run_store.records().items():
            try:
                codec.load(ResolvedProcess, json.loads(record.definition))
                codec.load(Kept, json.loads(record.kept))
            except ValueError as error:
                raise MaestroError(f"cannot read the record of {process}: {error}") from error
    finally:
        for name in os.listdir(scratch):
            os.unlink(os.path.join(scratch, name))
        os.rmdir(scratch)


def _copied(path: str, scratch: str) -> str:
    """Copy a database that is in use."""
    target = os.path.join(scratch, os.path.basename(path))
    try:
        source = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        copy = sqlite3.connect(target)
        source.backup(copy)
        source.close()
        copy.close()
    except sqlite3.Error as error:
        raise MaestroError(f"cannot read {path}: {error}") from error
    return target


def _whole(database: Database) -> None:
    if database.warning:
        raise MaestroError(f"cannot read what is stored: {database.warning}")
