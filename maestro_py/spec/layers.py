# SPDX-License-Identifier: Apache-2.0
"""Several sources of definitions, one on top of the other: shipped < config file < stored < document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace

from maestro_py.spec.model import ConfigSpec, ImageSpec, JobSpec, TemplateSpec
from maestro_py.valueclass import valueclass

ConfigKey = tuple[str, str]
"""(job, name) of a config."""


@valueclass(frozen=True)
class Layer:
    """Definitions from one source, by name; an upper layer's entry replaces a lower one's of that name."""

    jobs: Mapping[str, JobSpec] = field(default_factory=dict)
    templates: Mapping[str, TemplateSpec] = field(default_factory=dict)
    images: Mapping[str, ImageSpec] = field(default_factory=dict)
    configs: Mapping[ConfigKey, ConfigSpec] = field(default_factory=dict)


def layer(
    jobs: Iterable[JobSpec] = (),
    templates: Iterable[TemplateSpec] = (),
    images: Iterable[ImageSpec] = (),
    configs: Iterable[ConfigSpec] = (),
) -> Layer:
    """Return a layer from the lists a document holds."""
    return Layer(
        {job.job: job for job in jobs},
        {template.name: template for template in templates},
        {image.job: image for image in images},
        {(config.job, config.name): config for config in configs},
    )


def merge(layers: Iterable[Layer], disabled: Mapping[str, bool]) -> Layer:
    """Return what is in force. `disabled` holds what a person said with enable/disable; it wins."""
    jobs: dict[str, JobSpec] = {}
    templates: dict[str, TemplateSpec] = {}
    images: dict[str, ImageSpec] = {}
    configs: dict[ConfigKey, ConfigSpec] = {}
    for each in layers:
        jobs.update(each.jobs)
        templates.update(each.templates)
        images.update(each.images)
        configs.update(each.configs)
    for name, off in disabled.items():
        if name in jobs:
            jobs[name] = replace(jobs[name], disabled=off)
    return Layer(jobs, templates, images, configs)
