# SPDX-License-Identifier: Apache-2.0
"""What a user declares: pure, no clock, no files, no sockets."""
