# SPDX-License-Identifier: Apache-2.0
"""Where documentation is made: `python -m docs` writes man pages, schemas for editors, the API's description.

`pages/` holds what people wrote, a small part of Markdown; a line `{{fields job}}` stands for text that is
made from the tables the program itself works by. Nothing that is made is edited by hand.
"""
