"""entitlement-sidecar: answers "does this customer have this feature?" beside your application."""

__version__ = "0.1.0"
