#!/usr/bin/env python3
"""One datasite by hand; the same as ``factory-datasite``."""

from datasite_worker.__main__ import main

if __name__ == "__main__":
    main()
