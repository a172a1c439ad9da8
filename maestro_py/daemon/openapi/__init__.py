# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document of the API. The daemon serves openapi.json, and never imports what makes it."""
