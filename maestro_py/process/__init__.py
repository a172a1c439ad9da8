# SPDX-License-Identifier: Apache-2.0
"""From a resolved process to a Linux process, and what comes back from it."""
