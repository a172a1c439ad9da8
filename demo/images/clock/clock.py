# SPDX-License-Identifier: Apache-2.0
"""Tell the time every few seconds."""

import os
import time

print("!!OK!!", flush=True)
while True:
    print(time.strftime("%H:%M:%S"), "and all is well; pid", os.getpid(), flush=True)
    time.sleep(5)
