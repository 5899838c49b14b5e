"""Engines: what trains the candidates. All have the interface of `engine.Engine`."""
