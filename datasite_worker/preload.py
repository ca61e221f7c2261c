"""Imported once by the forkserver, so that every worker is born with PySyft and torch loaded. Starts no thread."""

import gc

import requests
import syft
import torch
import uvicorn

import datasite_worker.datasite
import datasite_worker.server

__all__ = ["datasite_worker", "requests", "syft", "torch", "uvicorn"]

# What is here now never dies: moved out of the collector's sight, its pages stay shared between the workers.
gc.collect()
gc.freeze()
