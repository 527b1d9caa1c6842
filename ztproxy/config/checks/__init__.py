"""Checks across sections and files, one file a subject; `every` lists them."""
