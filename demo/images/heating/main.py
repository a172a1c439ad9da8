# SPDX-License-Identifier: Apache-2.0
"""The Python form of this module: a line for every room, every few seconds."""


def run(config, context):
    """Report until the process is asked to stop."""
    while not context.stopping.wait(config["every_seconds"]):
        for room in config["rooms"]:
            print(f"heating: {room} is as it should be")
