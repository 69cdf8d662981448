"""The worlds: generators, readers and dataset builders."""
