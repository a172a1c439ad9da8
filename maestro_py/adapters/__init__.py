# SPDX-License-Identifier: Apache-2.0
"""Programs that speak other fleets' protocols through the client."""
