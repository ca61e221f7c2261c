"""Imported once by the forkserver, so that every worker is born with PySyft and torch loaded. Starts no thread."""

import gc
import logging

import requests
import torch
import torch._dynamo
import uvicorn

from datasite_worker.pysyft import imports

imports.load()

import datasite_worker.datasite
import datasite_worker.means.gpu
import datasite_worker.means.threads
from datasite_worker.pysyft import rehearsal
from fleet_common.logs import OURS

__all__ = ["datasite_worker", "requests", "torch", "uvicorn"]

# torch._dynamo is above because the first optimizer of a process imports it: more than a second of CPU, in every job.

rehearsal.prepare()

# Reads through all that is mapped, to find what stays where it is.
datasite_worker.means.threads.openblas()

for _name in OURS:  # see ``process.set_level``
    logging.getLogger(_name).setLevel(logging.INFO)

rehearsal.rehearse()

# Objects that exist now are never freed. Hidden from the garbage collector, their pages stay shared between workers.
gc.collect()
gc.freeze()
