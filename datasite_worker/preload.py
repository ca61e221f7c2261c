"""Imported once by the forkserver, so that every worker is born with PySyft and torch loaded. Starts no thread."""

import gc
import logging

import requests
import syft
import torch
import torch._dynamo
import uvicorn
from syft.protocol.data_protocol import get_data_protocol

import datasite_worker.datasite
import datasite_worker.means.gpu
import datasite_worker.means.threads
import datasite_worker.pysyft.jobs.process
import datasite_worker.pysyft.server
from datasite_worker.pysyft import decoding, logs
from datasite_worker.pysyft.rehearsal import rehearse
from fleet_common.logs import OURS

__all__ = ["datasite_worker", "requests", "syft", "torch", "uvicorn"]

# torch._dynamo is above because the first optimizer of a process imports it: more than a second of CPU, in every job.

decoding.install()
logs.set_levels()

# PySyft reads its protocol's history on the first request: once here, instead of 0.1 s and 12 MB in every worker.
get_data_protocol()

# Reads through all that is mapped, to find what stays where it is.
datasite_worker.means.threads.openblas()

for _name in OURS:  # see ``process.set_level``
    logging.getLogger(_name).setLevel(logging.INFO)

rehearse()

# What is here now never dies: moved out of the collector's sight, its pages stay shared between the workers.
gc.collect()
gc.freeze()
