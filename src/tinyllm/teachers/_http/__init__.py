"""Asking over HTTP: one client for every endpoint that speaks the OpenAI protocol."""
