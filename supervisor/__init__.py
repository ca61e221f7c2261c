"""Keeps the fleet alive. Imports neither syft nor torch, directly or through another package."""
