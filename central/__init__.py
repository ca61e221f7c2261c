"""The orchestrator's side of the wire. Importing this package stays cheap: the supervisor imports its entry."""
