"""The central dashboard: datasites register and beat here, people and orchestrators look.

Importing this package stays cheap: the supervisor imports ``central.dashboard.entry``.
"""
