"""The service: search, documents and pages over HTTP."""
