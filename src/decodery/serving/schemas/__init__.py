"""Describes the routes of a server: makes `/openapi.json` of the tables that read the requests."""
