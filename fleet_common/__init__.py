"""What supervised processes and their supervisor share: orders and status, files, logs, sockets. No PySyft.

Imports nothing of the other packages; supervisor, datasite_worker and central all import it.
"""
