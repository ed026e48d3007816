"""The experiments of the lectures, each one command: `python -m minidl.experiments`.

Every experiment trains a few networks that differ in one thing, and leaves a figure and a table.
"""
