#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sees nothing of the device but the image it came in.
echo "!!OK!!"
while :; do
    echo "my root holds:" /*
    sleep 5
done
