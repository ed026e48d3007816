"""Benchmarks: each measures minidl and its rival in one run, alternating."""
